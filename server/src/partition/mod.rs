//! A log with its role: high watermark, waiting producers and consumers.
