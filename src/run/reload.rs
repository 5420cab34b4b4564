//! SIGHUP: the configuration is read again.

use anyhow::Context as _;

use super::shared::Epoch;
use super::{Http, Instance, epoch};
use crate::config::Config;
use crate::telemetry::Reload;

impl Instance {
    /// Reads the configuration again: all of it is put in force, or nothing but its tokens, because a token that is taken back
    /// must not wait for a restart. So is the directory read again.
    pub fn reload(&mut self) {
        if let Some(desk) = &self.desk {
            desk.reload();
        }
        let (config, new) = match self.read_again() {
            Ok(read) => read,
            Err(e) => {
                self.shared.metrics.reloaded(Reload::Refused);
                tracing::error!(
                    "the configuration was not reloaded, the one before stays in force, its tokens as well: {e:#}"
                );
                return;
            }
        };
        let old = self.shared.epoch();
        if let Some(access) = &self.http_access {
            access.set_tokens(&config.http.token);
        }
        if let Some(key) = takes_a_restart((&self.options.config, &old), (&config, &new)) {
            self.options.config.http.token = config.http.token;
            self.shared.metrics.reloaded(Reload::Refused);
            tracing::error!(
                "the configuration was not reloaded, the one before stays in force: {key} has changed, which takes a restart; \
                 the tokens of http.token were reloaded all the same, and nothing else"
            );
            return;
        }
        let digest = new.digest.clone();
        let moved = config.desk != self.options.config.desk;
        if let Some(desk) = self.desk.as_ref().filter(|_| moved) {
            tracing::info!("the configuration was read again: secrets are read from other files from now on");
            desk.use_secrets(&config.desk);
        }
        if *old != new {
            tracing::info!("the configuration was read again: {digest} from now on, {} before", old.digest);
            self.shared.set_epoch(new);
        } else if config.http.token != self.options.config.http.token {
            tracing::info!("the configuration was read again: its tokens have changed");
        } else if !moved {
            tracing::info!(
                "the configuration was read again: nothing has changed in it; secrets are looked at by themselves"
            );
        }
        self.options.config = config;
        self.shared.metrics.config(&digest);
        self.shared.metrics.reloaded(Reload::Ok);
    }

    fn read_again(&self) -> anyhow::Result<(Config, Epoch)> {
        let path = self.options.path.as_deref().context("there is no configuration file")?;
        let config = Config::load(path)?;
        let new = epoch(&config)?;
        Ok((config, new))
    }
}

/// The key that has changed and cannot while the instance runs.
fn takes_a_restart((before, old): (&Config, &Epoch), (config, new): (&Config, &Epoch)) -> Option<&'static str> {
    let without_tokens = |http: &Http| Http { token: Vec::new(), ..http.clone() };
    let changed = [
        (config.kafka != before.kafka, "kafka"),
        (without_tokens(&config.http) != without_tokens(&before.http), "http.listen or http.advertise"),
        (
            config.desk.without_secrets() != before.desk.without_secrets(),
            "desk (other than secret_file, previous_secret_file and password_file)",
        ),
        (config.relays != before.relays, "relays"),
        (config.directory != before.directory, "directory"),
        (config.log != before.log, "log"),
        (config.run.workers != before.run.workers, "run.workers"),
        (config.run.instance != before.run.instance, "run.instance"),
        (config.run.session_timeout_ms != before.run.session_timeout_ms, "run.session_timeout_ms"),
        (new.policy.key != old.policy.key, "the fingerprint key"),
        (new.policy.spans != old.policy.spans, "detect.windows_s"),
    ];
    changed.into_iter().find_map(|(differs, key)| differs.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(before: &str, after: &str) -> Option<&'static str> {
        let read = |text: &str| {
            let config = Config::parse(text, "test").unwrap();
            let epoch = epoch(&config).unwrap();
            (config, epoch)
        };
        let (old, new) = (read(before), read(after));
        takes_a_restart((&old.0, &old.1), (&new.0, &new.1))
    }

    #[test]
    fn files_of_secrets_may_move_and_nothing_else_of_the_desk() {
        let desk = "[[desk.webhook]]\nname = 'a'\nurl = 'https://a.example/'\nsecret_file = 'one'\n\
                    [[desk.mail]]\nname = 'm'\nto = ['a@b.example']\nfrom = 'a@b.example'\nsmart_host = 'c.example:587'\n\
                    username = 'u'\npassword_file = 'p'\n";
        let moved = desk.replace("'one'", "'two'\nprevious_secret_file = 'one'").replace("'p'", "'q'");
        assert_eq!(key(desk, &moved), None);
        assert_eq!(key(&moved, desk), None);
        assert!(key(desk, &moved.replace("//a.", "//b.")).unwrap().starts_with("desk (other than secret_file"));
        assert!(key(desk, &desk.replace("'u'", "'v'")).is_some());
        assert_eq!(key("", "[detect]\nquiet_s = 43000\n"), None);
        assert_eq!(key("", "[run]\nworkers = 3\n"), Some("run.workers"));
    }
}
