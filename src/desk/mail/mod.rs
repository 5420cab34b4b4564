//! Alerts out, by e-mail through a smart host: for people without a webhook, and for ticket systems that open by mail.
//!
//! The smart host should lie outside the watched pool: mail about a listed relay must not leave through that relay. Nothing
//! here refuses one inside, as it cannot be told from its name.
//!
//! The way of an alert is that of a webhook up to the attempt ([`settings::Mailbox::endpoint`] stands for the mailbox in
//! routing, grouping and outbox); then [`render`] makes the mail, and [`client`] sends it. Only the client does I/O and only it
//! knows a clock.
//!
//! What must hold:
//! * Text that a stranger chose stays text: no header begins with it, no line is longer than SMTP allows, no mail is longer
//!   than [`render::MAIL_BYTES_MAX`].
//! * A repeat has the `Message-ID` of the first, and all mails of an incident refer to one root, so that readers thread them.
//! * A password is never shown, and is sent over TLS only, unless the settings say otherwise.

pub mod client;
pub mod render;
pub mod settings;

mod content;
mod page;
mod wire;

// The same rules for hostile text as in webhooks' bodies.
#[allow(clippy::duplicate_mod, dead_code)] // It is private to webhooks; cutting JSON is of no use here.
#[path = "../webhook/text.rs"]
mod text;
