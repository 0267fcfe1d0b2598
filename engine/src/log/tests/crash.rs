//! Power failures in the simulator.
