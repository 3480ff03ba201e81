//! The embedded S3 server: protocol by s3s, durable backend of our own
