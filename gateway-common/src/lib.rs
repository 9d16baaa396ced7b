//! Types and packet pipeline shared by the kernel programs and the agent.
#![cfg_attr(not(any(test, feature = "user")), no_std)]
