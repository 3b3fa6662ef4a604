//! Pure rules of ClusterKit: no IO, no clock, no thread, no float, no randomly ordered map.
#![no_std]

extern crate alloc;

pub mod config;
pub mod detector;
pub mod hash;
pub mod id;
pub mod node;
pub mod placement;
pub mod time;
