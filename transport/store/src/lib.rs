//! Content-addressed objects on S3, with memory and faulty twins
