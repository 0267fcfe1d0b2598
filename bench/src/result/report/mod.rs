//! `report.html`: one file that shows a run to a person, offline, in light and dark, on a screen of any width. Everything is made from
//! `result.json` alone; every chart has its numbers in a table.

pub mod chart;
mod page;
mod panels;
mod rounds;

pub use page::render;
