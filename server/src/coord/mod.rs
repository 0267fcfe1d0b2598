//! Coordinators: a request becomes (records, reply); the reply leaves after the records are durable; replay is the same code.
