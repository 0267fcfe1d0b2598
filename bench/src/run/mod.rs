//! What every measured run is made of, whatever it drives.
//!
//! Workers record what they do (`recorder`) against one clock (`clock`) and send one slice a second to the collector (`collector`), which
//! merges them, samples the machine beside them, and in the end has the series of the run. Data goes this one way. `stop` is how a run
//! ends early, `started` what is kept of its beginning.

pub mod clock;
pub mod collector;
pub mod recorder;
pub mod started;
pub mod stop;

pub use clock::RunClock;
pub use recorder::{Direction, PhaseSpan, PhaseTotals, Recorder, Slice};
pub use started::Started;
pub use stop::Stop;
