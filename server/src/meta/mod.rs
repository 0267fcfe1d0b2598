//! Cluster metadata: request, records, image, publish.
