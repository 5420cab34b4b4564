//! What stands in the control topic: others may write there, and the desk leaves their decisions as they are.

use std::collections::HashMap;

use rdkafka::Message as _;

use crate::core::decision::Decisions;
use crate::kafka::control;
use crate::kafka::restore::{Error, Read, Reader};

/// The control topic as far as it has been read.
#[derive(Debug, Default)]
pub(in crate::desk) struct Foreign {
    by_key: HashMap<String, Decisions>,
    next_offset: i64,
}

impl Foreign {
    /// Reads on to the end.
    pub(in crate::desk) fn read(
        &mut self,
        reader: &Reader,
        topic: &str,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let (low, high) = reader.range(topic, 0)?;
        if self.next_offset > high {
            // Made anew.
            *self = Self::default();
        }
        let from = self.next_offset.max(low);
        if from >= high {
            return Ok(());
        }
        reader.read(topic, 0, from, wanted, &mut |message| {
            self.take(message.key().unwrap_or_default(), message.payload());
            self.next_offset = message.offset() + 1;
            Ok(Read::On)
        })
    }

    /// A record. One that cannot be read says nothing: the detectors do not use it either, and say so.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        match control::read(key, value) {
            Ok(decisions) if decisions.is_empty() => _ = self.by_key.remove(&*decisions.key()),
            Ok(decisions) => _ = self.by_key.insert(decisions.key().into_owned(), decisions),
            Err(_) => {}
        }
    }

    /// What stands under a key.
    pub(in crate::desk) fn of(&self, key: &str) -> Option<&Decisions> {
        self.by_key.get(key)
    }
}
