//! The admin socket's place.

use super::finding::Finding;
use crate::app::console;
use crate::config::console::AdminSocket;
use crate::config::{Environment, Flags};

const WHAT: &str = "admin socket";

/// Without one that was asked for there is no start; without one that was not, everything but
/// `ringside admin` and `tap` works.
pub fn place(flags: &Flags, env: &Environment) -> Finding {
    let Some((path, asked)) = console::place(flags, env) else {
        if AdminSocket::parse(&flags.ringside.admin_socket) == AdminSocket::Off {
            return Finding::ok(WHAT, "switched off");
        }
        return Finding::warn(
            WHAT,
            "there will be none: XDG_RUNTIME_DIR is not set",
            "set it to a folder that is this user's alone, or say --ringside-admin-socket PATH",
        );
    };
    let shown = path.display();
    let advice = "say --ringside-admin-socket with another path, in a folder that is there and \
                  where this user may write; or off";
    match console::examine(&path, asked) {
        Ok(found) => Finding::ok(WHAT, format!("{shown}: {found}")),
        Err(error) if asked => Finding::fail(WHAT, format!("{shown}: {error}"), advice),
        Err(error) => {
            Finding::warn(WHAT, format!("there will be none at {shown}: {error}"), advice)
        }
    }
}
