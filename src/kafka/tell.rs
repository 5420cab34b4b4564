//! A few records now and then, told to other instances: sent, and waited for.

use std::time::Duration;

use super::Kafka;
use super::publish::{Publisher, producer_config, record};

/// The brokers have so long to take what is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells. It has a producer from the first word on: most instances never say one.
#[derive(Default)]
pub struct Teller(Option<Publisher>);

impl Teller {
    /// Takes what the brokers have to say. To be called now and then while nothing is told.
    pub fn hear(&self) {
        self.0.iter().for_each(Publisher::hear);
    }

    /// Sends keys and values to `topic`, and waits until all have arrived, some seconds at most.
    ///
    /// # Errors
    /// Where one has not: all may be told again.
    pub fn tell(&mut self, kafka: &Kafka, topic: &str, told: &[(String, Vec<u8>)]) -> Result<(), String> {
        let publisher = match self.0.take() {
            Some(publisher) => publisher,
            None => {
                let config = producer_config(kafka).map_err(|e| e.to_string())?;
                Publisher::new(&config).map_err(|e| e.to_string())?
            }
        };
        for (number, (key, value)) in told.iter().enumerate() {
            let sent = publisher.offer(record(topic, number, Some(key.as_bytes()), Some(value)));
            match sent.map_err(|e| publisher.explain(topic, &e))? {
                None => {}
                Some(_) => return Err(format!("{topic}: the producer's queue is full")),
            }
        }
        publisher.flush(Some(PATIENCE));
        match publisher.first_failed() {
            // What was purged may leave its mark on a producer: after a failure the next word has a new one.
            Some(failed) => Err(publisher.explain(topic, &failed.error)),
            None => {
                self.0 = Some(publisher);
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Teller").field(&self.0.is_some()).finish()
    }
}
