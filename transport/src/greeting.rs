//! The first bytes of a connection. A caller's TLS is done before the other side has judged its key, so a
//! connection is up only once it has answered.

use quinn::{Connection, RecvStream, SendStream};

const HELLO: [u8; 13] = *b"iota/1 hello\n";
const READY: [u8; 13] = *b"iota/1 ready\n";

/// The caller's side: opens the control stream.
pub(crate) async fn call(connection: &Connection) -> Result<(SendStream, RecvStream), String> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(in_words)?;
    send.write_all(&HELLO).await.map_err(in_words)?;
    expect(&mut recv, READY).await?;
    Ok((send, recv))
}

/// The other side: takes the control stream and answers.
pub(crate) async fn answer(connection: &Connection) -> Result<(SendStream, RecvStream), String> {
    let (mut send, mut recv) = connection.accept_bi().await.map_err(in_words)?;
    expect(&mut recv, HELLO).await?;
    send.write_all(&READY).await.map_err(in_words)?;
    Ok((send, recv))
}

async fn expect(recv: &mut RecvStream, expected: [u8; 13]) -> Result<(), String> {
    let mut found = [0; 13];
    recv.read_exact(&mut found).await.map_err(in_words)?;
    if found != expected {
        let [found, expected] = [found, expected].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        return Err(format!("expected the greeting {expected:?}, found {found:?}"));
    }
    Ok(())
}

fn in_words(error: impl ToString) -> String {
    error.to_string()
}
