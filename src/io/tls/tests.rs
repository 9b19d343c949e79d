//! Sessions against sessions.
