//! Pickers that the controller runs for managed pools.
//!
//! ```text
//!  index ──ManagedPicker──► render (pure) ──objects──► keeper ──server-side apply──► API server
//!                                                       ▲  └──PickerState──► event_loop ──► status
//!                                                       └── watches of what it made: drift, rollouts
//! ```

mod keeper;
mod render;
mod rollout;

pub(crate) use keeper::{Keeper, PickerState, Wanted};
pub(crate) use render::Settings;
