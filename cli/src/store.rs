//! Which store a run's orchestrator uses: the embedded server, or any S3 endpoint.

use crate::failure::{Failure, Result};
use bucket::{Credentials, Server};
use orchestrator::RunFolder;
use std::net::SocketAddr;
use store::S3Config;

/// Name of the bucket in the embedded store.
const BUCKET: &str = "iota";

#[derive(clap::Args)]
pub struct StoreArguments {
    /// An S3 endpoint instead of the embedded server; its keys are IOTA_STORE_ACCESS_KEY and IOTA_STORE_SECRET_KEY, or those of AWS
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The bucket there; made if it is missing
    #[arg(long, value_name = "NAME", default_value = BUCKET, requires = "store")]
    bucket: String,
    /// The region there
    #[arg(long, value_name = "NAME", default_value = "us-east-1", requires = "store")]
    region: String,
}

impl StoreArguments {
    /// How to reach the store; the embedded server, where it is that one, serves until it is dropped.
    pub async fn open(&self, folder: &RunFolder, listen: SocketAddr) -> Result<(Option<Server>, S3Config)> {
        let Some(endpoint) = &self.store else {
            let (server, store) = embedded(folder, listen).await?;
            return Ok((Some(server), store));
        };
        let set = |names: [&str; 2]| {
            let key = names.iter().find_map(|name| std::env::var(name).ok().filter(|key| !key.is_empty()));
            let unset = || format!("--store {endpoint}: set {} or {} in the environment", names[0], names[1]);
            key.ok_or_else(|| Failure::input(unset()))
        };
        let access = set(["IOTA_STORE_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])?;
        let secret = set(["IOTA_STORE_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"])?;
        let mut store = S3Config::new(endpoint, &self.bucket, access, secret);
        store.region.clone_from(&self.region);
        Ok((None, store))
    }
}

/// Serves the store that lies in a run's folder.
pub async fn embedded(folder: &RunFolder, listen: SocketAddr) -> Result<(Server, S3Config)> {
    let input = |error: &dyn std::fmt::Display| Failure::input(error.to_string());
    let secrets = folder.secrets().map_err(|error| input(&error))?;
    let credentials =
        Credentials { access_key: secrets.access_key.clone(), secret_key: secrets.secret_key.clone() };
    let server =
        bucket::serve(&folder.path("bucket"), listen, credentials).await.map_err(|error| input(&error))?;
    let store = S3Config::new(server.endpoint(), BUCKET, secrets.access_key, secrets.secret_key);
    Ok((server, store))
}
