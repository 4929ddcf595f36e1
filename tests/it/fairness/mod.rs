//! No caller can hold up another: beside one caller's abuse an honest caller is nearly as fast as alone, the service
//! stays ready, and its memory hardly grows.
//!
//! Each abuse was once shown to take the whole service. What is compared is the honest caller's median
//! alone and beside the abuse. The machine is shared, so a trial has five rounds and the best counts;
//! and only one trial runs at a time.

mod abuser;
mod bystanders;
mod connections;
mod lists;
mod many;
mod memory;
mod stage;
mod swarm;
mod trial;
mod unread;
mod updates;
mod watches;
