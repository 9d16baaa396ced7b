//! Slow and hostile clients against the proxy, beside a normal one that must not notice.
//!
//! Four processes' worth of parts: the proxy ([`gateway`]) and its backend ([`origin`]) run in processes of their own,
//! the attackers ([`attackers`]) on one thread, the normal client ([`normal`]) on another. What a kind of attacker
//! sends is a [`script::Script`]; [`round`] sets the two against each other and judges.

pub mod attackers;
#[path = "../../gateway-user/tests/proxy/h2frames.rs"]
mod frames;
pub mod gateway;
mod http1;
mod http2;
pub mod normal;
pub mod origin;
pub mod part;
pub mod round;
pub mod script;
pub mod told;
