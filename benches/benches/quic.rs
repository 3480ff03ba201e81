//! Goodput of payload frames between two processes over loopback, beside a plain TCP stream, in turn.
//!
//! One process sends messages of 1 MiB, the other takes them; both count the CPU time they spend. Frames are whole: framed,
//! checksummed, encrypted, acknowledged by the receiving program, which TCP's bytes are not. Random bytes, so that packing
//! has nothing to win and is off.
//!
//! `cargo bench -p benches --bench quic`

use anyhow::{Context, Result, ensure};
use spec::{Digest, Member, Mode, NodeId, Operation, Outcome};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use transport::{Config, Connection, Endpoint, Received};
use wire::{Frame, Key, Message, PayloadHead, PayloadKind, Receipt, Signed};

/// Set in the process that receives.
const RECEIVES: &str = "IOTA_BENCH_RECEIVES";
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages of one round.
const MESSAGES: u32 = 768;
const ROUNDS: usize = 5;
/// Clock ticks of the CPU times in /proc: 100 a second on every Linux that runs Rust.
const TICKS_PER_S: f64 = 100.0;

/// One round.
#[derive(Debug, Clone, Copy)]
struct Round {
    bytes_per_s: f64,
    /// Of both processes, per 10^9 bytes.
    cpu_s_per_gb: f64,
}

fn main() -> Result<()> {
    // Cargo asks benches for their names in `cargo test`.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::var_os(RECEIVES).is_some() {
        runtime.block_on(receive())
    } else {
        runtime.block_on(compare())
    }
}

fn sender() -> Key {
    Key::from_seed([1; 32])
}

fn receiver() -> Key {
    Key::from_seed([2; 32])
}

fn config() -> Config {
    Config { packing: false, ..Config::default() }
}

async fn compare() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(RECEIVES, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the receiving process does not start")?;
    let outcome = rounds(&mut child).await;
    drop(child.stdin.take());
    child.wait()?;
    outcome
}

async fn rounds(child: &mut Child) -> Result<()> {
    let mut lines =
        BufReader::new(child.stdout.take().context("no output of the receiving process")?).lines();
    let mut address =
        || -> Result<SocketAddr> { Ok(lines.next().context("the receiving process ended")??.parse()?) };
    let (tcp, quic) = (address()?, address()?);
    let mut noise = vec![0; MESSAGE_BYTES];
    getrandom::fill(&mut noise).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let body = bytes::Bytes::from(noise);
    let mut stream = TcpStream::connect(tcp)?;
    let connection = Endpoint::connect(quic, receiver().id(), &sender(), config()).await?;
    let receipt = receipt();
    let (mut plain, mut ours) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let round = Clock::start(child.id())?;
        for _ in 0..MESSAGES {
            stream.write_all(&body)?;
        }
        stream.read_exact(&mut [0])?;
        plain.push(round.stop()?);
        let round = Clock::start(child.id())?;
        for number in 0..MESSAGES {
            connection.send(frame(receiver().id(), number, receipt.clone(), body.clone())).await?;
        }
        ensure!(matches!(connection.recv().await?, Received::Frame(_)), "the receiver did not acknowledge");
        ours.push(round.stop()?);
    }
    connection.close("measured").await;
    let gib = f64::from(MESSAGES) * MESSAGE_BYTES as f64 / f64::from(1 << 30);
    println!("{ROUNDS} rounds of {gib:.2} GiB in messages of 1 MiB over loopback, median");
    for (name, rounds) in [("TCP", &mut plain), ("QUIC", &mut ours)] {
        let middle = median(rounds);
        println!("{name:<5} {:>6.2} GB/s  {:>5.2} CPU s/GB", middle.bytes_per_s / 1e9, middle.cpu_s_per_gb);
    }
    println!("QUIC / TCP: {:.2}", median(&mut ours).bytes_per_s / median(&mut plain).bytes_per_s);
    Ok(())
}

/// Takes rounds over TCP and QUIC until its input closes.
async fn receive() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    let endpoint = Endpoint::listen((Ipv4Addr::LOCALHOST, 0).into(), &receiver(), config())?;
    println!("{}", endpoint.local_addr());
    std::thread::spawn(move || take_stream(&listener));
    let connection = endpoint.accept().await.context("nobody called")?;
    while take_frames(&connection).await.is_ok() {}
    Ok(())
}

fn take_stream(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; MESSAGE_BYTES];
    loop {
        let mut left = MESSAGES as usize * MESSAGE_BYTES;
        while left > 0 {
            let room = left.min(buffer.len());
            let read = stream.read(&mut buffer[..room])?;
            ensure!(read > 0, "the sender is gone");
            left -= read;
        }
        stream.write_all(&[1])?;
    }
}

async fn take_frames(connection: &Connection) -> Result<()> {
    let mut left = MESSAGES;
    while left > 0 {
        if let Received::Frame(_) = connection.recv().await? {
            left -= 1;
        }
    }
    Ok(connection.send(Frame::new(sender().id(), Message::Ready { epoch: 0, turn: 0 })).await?)
}

fn frame(to: NodeId, number: u32, receipt: Signed<Receipt>, body: bytes::Bytes) -> Frame {
    let kind = PayloadKind::Activation;
    let head = PayloadHead { kind, assignment: number.into(), attempt: 0, receipt };
    Frame { body, ..Frame::new(to, Message::Payload(head)) }
}

/// Any receipt: nobody here reads it.
fn receipt() -> Signed<Receipt> {
    let member = Member { assignment: 0, attempt: 0, step: 0, position: 0, microbatch: 0 };
    let body = Receipt {
        run: Digest::default(),
        mode: Mode::Portable,
        epoch: 0,
        sequence: 0,
        previous: Digest::default(),
        stage: 0,
        operation: Operation::Forward(member),
        state: None,
        input_receipt: None,
        input: None,
        output: None,
        loss_q32: None,
        outcome: Outcome::Ok,
    };
    Signed::new(body, &sender())
}

/// Wall time, and the CPU time of this process and another.
struct Clock {
    began: Instant,
    other: u32,
    cpu_s: f64,
}

impl Clock {
    fn start(other: u32) -> Result<Self> {
        Ok(Self { other, cpu_s: cpu_s(std::process::id())? + cpu_s(other)?, began: Instant::now() })
    }

    fn stop(self) -> Result<Round> {
        let took: Duration = self.began.elapsed();
        let cpu_s = cpu_s(std::process::id())? + cpu_s(self.other)? - self.cpu_s;
        let bytes = f64::from(MESSAGES) * MESSAGE_BYTES as f64;
        Ok(Round { bytes_per_s: bytes / took.as_secs_f64(), cpu_s_per_gb: cpu_s / (bytes / 1e9) })
    }
}

/// CPU time that a process has spent, in seconds.
fn cpu_s(process: u32) -> Result<f64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{process}/stat")).context("CPU times are read from /proc")?;
    // The name, in parentheses, may hold spaces; user and system time are fields 14 and 15 of all.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_S)
}

fn median(rounds: &mut [Round]) -> Round {
    rounds.sort_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
    rounds[rounds.len() / 2]
}
