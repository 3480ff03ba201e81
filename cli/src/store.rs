//! Which store a run's orchestrator uses: the embedded server, or any S3 endpoint.

use crate::failure::{Failure, Result};
use bucket::{Credentials, Server};
use orchestrator::RunFolder;
use spec::{Outer, Run};
use std::net::SocketAddr;
use store::S3Config;

/// Name of the bucket in the embedded store.
const BUCKET: &str = "iota";
/// File of a run that holds the port of its embedded store.
const PORT: &str = "store-port";

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
            let (server, store) = embedded_again(folder, listen).await?;
            return Ok((Some(server), store));
        };
        check_objects(endpoint, &folder.run().map_err(|error| Failure::input(error.to_string()))?)?;
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

/// What S3 takes in one request, which is how miners put their objects.
const S3_PUT_BYTES_MAX: u64 = 5 << 30;

/// Whether an S3 store takes what the miners of a run put there.
fn check_objects(endpoint: &str, run: &Run) -> Result<()> {
    let longest = (0..run.model.stage_count()).map(|stage| run.model.stage_parameters(stage)).max();
    let weights = 4 * longest.unwrap_or_default();
    // Weights and two moments; with an outer step also its residual and momentum.
    let state = weights * if run.outer == Outer::None { 3 } else { 5 };
    let (what, bytes, remedy) = match run.audit.windows {
        0 => ("weights", weights, ""),
        _ => ("state, which an audit may draw,", state, ", set audit.windows = 0"),
    };
    if bytes <= S3_PUT_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::input(format!(
        "--store {endpoint}: the largest stage's {what} takes {bytes} bytes, S3 takes {S3_PUT_BYTES_MAX} in one request: cut the model into more stages{remedy} or use the embedded store"
    )))
}

/// As [`embedded`]. Where any port will do it is the one of the last time, if that is free: what nodes were granted there still holds.
async fn embedded_again(folder: &RunFolder, listen: SocketAddr) -> Result<(Server, S3Config)> {
    if listen.port() != 0 {
        return embedded(folder, listen).await;
    }
    let text = std::fs::read_to_string(folder.path(PORT)).unwrap_or_default();
    let last = match text.trim().parse() {
        Ok(port) => embedded(folder, SocketAddr::new(listen.ip(), port)).await.ok(),
        Err(_) => None,
    };
    let (server, store) = match last {
        Some(found) => found,
        None => embedded(folder, listen).await?,
    };
    let port = server.endpoint().rsplit(':').next().unwrap_or_default().to_owned();
    if let Err(error) = folder.write(PORT, port.as_bytes(), false) {
        tracing::warn!(%error, "the store's port is not remembered: after a restart nodes ask where it is");
    }
    Ok((server, store))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_s3_does_not_take_in_one_request_is_refused_before_the_run() {
        let mut run = Run::from_toml(include_str!("../../orchestrator/plan/src/tests/run.toml")).unwrap();
        let said = |run: &Run| check_objects("http://s3", run).err().map(|failure| failure.to_string());
        assert_eq!(said(&run), None);
        // 2^28 parameters and a few: a state of 5 GiB and a little.
        (run.model.ffn, run.model.stages) = (349_525, vec![1; 4]);
        assert!(run.model.stage_parameters(1) > 1 << 28, "{}", run.model.stage_parameters(1));
        let why = said(&run).unwrap_or_default();
        let words =
            ["--store http://s3: the largest stage's state", "5368709120", "set audit.windows = 0 or use"];
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
        run.audit.windows = 0;
        assert_eq!(said(&run), None);
        run.model.stages = vec![5; 4];
        assert!(said(&run).unwrap_or_default().contains("the largest stage's weights takes"));
        (run.audit.windows, run.model.stages) = (1, vec![1; 4]);
        run.outer = Outer::None;
        assert_eq!(said(&run), None);
    }
}
