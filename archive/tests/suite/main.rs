//! The archiver over stores in memory that fail on demand, with hours that pass in no time.

mod faulty;
mod outage;
mod records;
mod tables;
mod wrong;
