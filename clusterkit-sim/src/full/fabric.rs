//! What lies between the machines: segments under way, cuts, and the two ends of each connection.
//!
//! It behaves like TCP over a bad network. Bytes of a connection arrive complete and in order or
//! not at all: what is lost or cut off is sent again later, what overtakes waits for what is
//! missing. A machine that died silently answers nothing until it is back and then resets what it
//! does not know. Who opens and reads connections stands in [`super::net`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

use crate::Rng;

/// How many bytes of one direction may be under way or unread.
const WINDOW_BYTES: usize = 256 << 10;
/// How long until what was lost is sent again, at least and at most.
const RESEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(400));
/// Ports of those that connect begin here.
const EPHEMERAL: u16 = 32_768;

/// How the network is at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// The shortest and the longest way of a segment.
    pub(crate) latency: (Duration, Duration),
    /// Up to how much longer it may take besides.
    pub(crate) extra: Duration,
    /// How many segments of a thousand have to be sent again.
    pub(crate) loss: u32,
    /// How many segments of a thousand are held back, so that others overtake them.
    pub(crate) reorder: u32,
    /// How many messages of a thousand between peers arrive twice.
    pub(crate) duplicate: u32,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(300), Duration::from_micros(1_500)),
            extra: Duration::ZERO,
            loss: 0,
            reorder: 0,
            duplicate: 0,
        }
    }
}

/// The network between all machines.
#[derive(Debug)]
pub(crate) struct Fabric(Mutex<State>);

#[derive(Debug)]
struct State {
    now: Duration,
    rng: Rng,
    weather: Weather,
    sequence: u64,
    under_way: BinaryHeap<Reverse<Parcel>>,
    /// How many cuts stand between a sender and a receiver, and what they hold up.
    cuts: BTreeMap<(IpAddr, IpAddr), Cut>,
    machines: BTreeMap<IpAddr, Machine>,
    listeners: BTreeMap<SocketAddr, Waiting>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Woken once the lock is released.
    wake: Vec<Waker>,
    /// Everything that was sent and when it arrived, for comparison.
    hash: u64,
    figures: NetworkFigures,
}

/// What the network has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkFigures {
    pub(crate) connections: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

#[derive(Debug, Default)]
struct Cut {
    depth: u32,
    held: Vec<Parcel>,
}

#[derive(Debug, Default)]
struct Machine {
    boot: u64,
    /// Answers nothing, not even that nobody listens.
    silent: bool,
    next_port: u16,
}

#[derive(Debug)]
struct Waiting {
    boot: u64,
    accepted: VecDeque<u64>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Parcel {
    at: Duration,
    sequence: u64,
    from: IpAddr,
    to: IpAddr,
    connection: u64,
    /// Which end receives it.
    side: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Open,
    Opened,
    /// The number of the segment within its direction.
    Segment(u64, Segment),
    Reset,
}

#[derive(Debug)]
enum Segment {
    Data(Bytes),
    Fin,
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Parcel {}

impl PartialOrd for Parcel {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Parcel {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
    opened: Opening,
    opener: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Asked,
    Open,
    Refused,
}

#[derive(Debug)]
struct End {
    address: SocketAddr,
    boot: u64,
    inbox: VecDeque<Bytes>,
    /// The number of the segment that comes next, and those that came before their turn.
    expected: u64,
    early: BTreeMap<u64, Segment>,
    ended: bool,
    reset: bool,
    /// Nobody holds this end any more.
    gone: bool,
    /// How many segments it has sent, and how many bytes of them nobody has read yet.
    sent: u64,
    unread: usize,
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    fn new(address: SocketAddr, boot: u64) -> Self {
        Self {
            address,
            boot,
            inbox: VecDeque::new(),
            expected: 0,
            early: BTreeMap::new(),
            ended: false,
            reset: false,
            gone: false,
            sent: 0,
            unread: 0,
            finished: false,
            reader: None,
            writer: None,
        }
    }
}

/// Mixes `value` into a running hash.
fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Fabric {
    pub(crate) fn new(rng: Rng) -> Self {
        Self(Mutex::new(State {
            now: Duration::ZERO,
            rng,
            weather: Weather::default(),
            sequence: 0,
            under_way: BinaryHeap::new(),
            cuts: BTreeMap::new(),
            machines: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            wake: Vec::new(),
            hash: 0,
            figures: NetworkFigures::default(),
        }))
    }

    /// Runs `work` and then wakes whom it concerns: a waker may run code that comes back here.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state);
        let wake = std::mem::take(&mut state.wake);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves time to `now` and delivers what has arrived.
    pub(crate) fn advance(&self, now: Duration) {
        self.with(|state| state.advance(now));
    }

    /// Returns the true time.
    pub(crate) fn now(&self) -> Duration {
        self.lock().now
    }

    pub(crate) fn figures(&self) -> NetworkFigures {
        self.lock().figures
    }

    /// Returns the hash of everything that was delivered so far.
    pub(crate) fn hash(&self) -> u64 {
        self.lock().hash
    }

    pub(crate) fn weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock().weather);
    }

    /// Lets nothing through from one machine to another, once more than before.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.lock().cuts.entry((from, to)).or_default().depth += 1;
    }

    /// Takes one cut back; what was held up by the last is sent again.
    pub(crate) fn mend(&self, from: IpAddr, to: IpAddr) {
        self.lock().mend(from, to);
    }

    /// A process starts on `host`; returns its boot number.
    pub(crate) fn boot(&self, host: IpAddr) -> u64 {
        self.with(|state| state.boot(host))
    }

    /// The process on `host` has died; with `silent` its machine too, so that nobody is told.
    pub(crate) fn died(&self, host: IpAddr, silent: bool) {
        self.with(|state| state.died(host, silent));
    }

    pub(super) fn listen(&self, host: IpAddr, boot: u64, port: u16) -> io::Result<SocketAddr> {
        let mut state = self.lock();
        let port = match port {
            0 => state.port(host),
            port => port,
        };
        let address = SocketAddr::new(host, port);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let waiting = Waiting {
            boot,
            accepted: VecDeque::new(),
            waker: None,
        };
        state.listeners.insert(address, waiting);
        Ok(address)
    }

    pub(super) fn unlisten(&self, address: SocketAddr, boot: u64) {
        self.with(|state| {
            if state
                .listeners
                .get(&address)
                .is_some_and(|w| w.boot == boot)
                && let Some(waiting) = state.listeners.remove(&address)
            {
                // Nobody will ever take these.
                for connection in waiting.accepted {
                    state.close(connection, 1);
                }
            }
        });
    }

    pub(super) fn poll_accept(
        &self,
        address: SocketAddr,
        boot: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(u64, SocketAddr)>> {
        let mut state = self.lock();
        let Some(waiting) = state.listeners.get_mut(&address).filter(|w| w.boot == boot) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some(connection) = waiting.accepted.pop_front() else {
            waiting.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let remote = state.connections.get(&connection);
        let remote = remote.map_or(address, |connection| connection.ends[0].address);
        Poll::Ready(Ok((connection, remote)))
    }

    /// Asks for a connection; the answer is had by [`Self::poll_opened`].
    pub(super) fn open(&self, from: IpAddr, boot: u64, to: SocketAddr) -> u64 {
        self.lock().open(from, boot, to)
    }

    pub(super) fn poll_opened(
        &self,
        connection: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let Some(found) = state.connections.get_mut(&connection) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        match found.opened {
            Opening::Open => Poll::Ready(Ok(())),
            Opening::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Opening::Asked => {
                found.opener = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_read(
        &self,
        connection: u64,
        side: usize,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|state| {
            let Some(found) = state.connections.get_mut(&connection) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let [here, there] = found.pair(side);
            if here.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let mut read = 0;
            while buffer.remaining() > 0
                && let Some(front) = here.inbox.front_mut()
            {
                let taken = front.len().min(buffer.remaining());
                buffer.put_slice(&front[..taken]);
                front.advance(taken);
                read += taken;
                if front.is_empty() {
                    here.inbox.pop_front();
                }
            }
            if read > 0 {
                there.unread -= read.min(there.unread);
                state.wake.extend(there.writer.take());
                return Poll::Ready(Ok(()));
            }
            if here.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            here.reader = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    pub(super) fn poll_write(
        &self,
        connection: u64,
        side: usize,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|state| {
            let Some(found) = state.connections.get_mut(&connection) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let [here, _] = found.pair(side);
            if here.reset || here.finished {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
            let length = wanted.min(WINDOW_BYTES.saturating_sub(here.unread));
            if length == 0 && wanted > 0 {
                here.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut bytes = Vec::with_capacity(length);
            for slice in slices {
                let taken = slice.len().min(length - bytes.len());
                bytes.extend_from_slice(&slice[..taken]);
            }
            here.unread += length;
            state.segment(connection, side, Segment::Data(Bytes::from(bytes)));
            Poll::Ready(Ok(length))
        })
    }

    /// The end `side` will write no more.
    pub(super) fn finish(&self, connection: u64, side: usize) {
        self.with(|state| state.finish(connection, side));
    }

    /// The end `side` is let go of.
    pub(super) fn close(&self, connection: u64, side: usize) {
        self.with(|state| state.close(connection, side));
    }
}

impl Connection {
    /// Returns the end `side` and the other one.
    fn pair(&mut self, side: usize) -> [&mut End; 2] {
        let [first, second] = &mut self.ends;
        if side == 0 {
            [first, second]
        } else {
            [second, first]
        }
    }
}

impl State {
    fn advance(&mut self, now: Duration) {
        self.now = now;
        while self
            .under_way
            .peek()
            .is_some_and(|Reverse(parcel)| parcel.at <= now)
        {
            let Some(Reverse(parcel)) = self.under_way.pop() else {
                return;
            };
            match self.cuts.get_mut(&(parcel.from, parcel.to)) {
                Some(cut) if cut.depth > 0 => cut.held.push(parcel),
                _ => self.arrive(parcel),
            }
        }
    }

    fn mend(&mut self, from: IpAddr, to: IpAddr) {
        let Some(cut) = self.cuts.get_mut(&(from, to)) else {
            return;
        };
        cut.depth = cut.depth.saturating_sub(1);
        if cut.depth > 0 {
            return;
        }
        for mut parcel in std::mem::take(&mut cut.held) {
            // Each connection has a timer of its own for what was not acknowledged.
            parcel.at = self.now + self.rng.duration(Duration::ZERO..=RESEND.1);
            self.under_way.push(Reverse(parcel));
        }
    }

    fn machine(&mut self, host: IpAddr) -> &mut Machine {
        self.machines.entry(host).or_default()
    }

    fn port(&mut self, host: IpAddr) -> u16 {
        let machine = self.machine(host);
        machine.next_port = machine.next_port.wrapping_add(1) % EPHEMERAL;
        EPHEMERAL + machine.next_port
    }

    fn boot(&mut self, host: IpAddr) -> u64 {
        let machine = self.machine(host);
        machine.boot += 1;
        machine.silent = false;
        let boot = machine.boot;
        // Whoever sends to a process that is gone is told at the latest now.
        self.reset_all(host);
        boot
    }

    fn died(&mut self, host: IpAddr, silent: bool) {
        let machine = self.machine(host);
        machine.boot += 1;
        machine.silent = silent;
        self.listeners.retain(|address, _| address.ip() != host);
        for connection in self.connections.values_mut() {
            for end in &mut connection.ends {
                if end.address.ip() == host {
                    end.gone = true;
                }
            }
        }
        if !silent {
            self.reset_all(host);
        }
    }

    /// Resets the connections of the processes of `host` that are gone.
    fn reset_all(&mut self, host: IpAddr) {
        let of_host: Vec<(u64, usize)> = self
            .connections
            .iter()
            .flat_map(|(id, connection)| {
                let ends = connection.ends.iter().enumerate();
                ends.filter(|(_, end)| end.address.ip() == host && end.gone)
                    .map(|(side, _)| (*id, side))
            })
            .collect();
        for (connection, side) in of_host {
            self.send(connection, 1 - side, What::Reset);
        }
        self.sweep();
    }

    /// Forgets connections that nobody holds.
    fn sweep(&mut self) {
        self.connections
            .retain(|_, connection| connection.ends.iter().any(|end| !end.gone));
    }

    fn open(&mut self, from: IpAddr, boot: u64, to: SocketAddr) -> u64 {
        let port = self.port(from);
        let connection = self.next_connection;
        self.next_connection += 1;
        self.figures.connections += 1;
        let mut accepting = End::new(to, 0);
        accepting.gone = true;
        let opening = End::new(SocketAddr::new(from, port), boot);
        self.connections.insert(
            connection,
            Connection {
                ends: [opening, accepting],
                opened: Opening::Asked,
                opener: None,
            },
        );
        self.send(connection, 1, What::Open);
        connection
    }

    fn finish(&mut self, connection: u64, side: usize) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let [here, _] = found.pair(side);
        if here.finished || here.reset || here.gone {
            return;
        }
        here.finished = true;
        self.segment(connection, side, Segment::Fin);
    }

    fn close(&mut self, connection: u64, side: usize) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let [here, _] = found.pair(side);
        if here.gone {
            return;
        }
        // What was not read is lost, and who sent it is told.
        let unread = !here.inbox.is_empty();
        here.inbox.clear();
        if unread {
            self.send(connection, 1 - side, What::Reset);
        } else {
            self.finish(connection, side);
        }
        if let Some(found) = self.connections.get_mut(&connection) {
            let [here, there] = found.pair(side);
            here.gone = true;
            here.reader = None;
            here.writer = None;
            if there.gone && (side == 1 || found.opened != Opening::Asked) {
                self.connections.remove(&connection);
            }
        }
    }

    /// Sends the next segment of the end `side`.
    fn segment(&mut self, connection: u64, side: usize, segment: Segment) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let [here, _] = found.pair(side);
        let number = here.sent;
        here.sent += 1;
        let (from, boot, to) = (here.address.ip(), here.boot, found.ends[1 - side].address);
        let copied = match &segment {
            Segment::Data(bytes) => {
                self.figures.bytes += bytes.len() as u64;
                let twice = self.weather.duplicate > 0
                    && is_peer_message(bytes)
                    && self.rng.chance(self.weather.duplicate);
                twice.then(|| bytes.clone())
            }
            Segment::Fin => None,
        };
        self.send(connection, 1 - side, What::Segment(number, segment));
        if let Some(bytes) = copied {
            // The copy comes over a connection of its own that nobody listens to.
            self.figures.duplicated += 1;
            let ghost = self.open(from, boot, to);
            self.segment(ghost, 0, Segment::Data(bytes));
        }
    }

    /// Sends `what` to the end `side`.
    fn send(&mut self, connection: u64, side: usize, what: What) {
        let Some(found) = self.connections.get(&connection) else {
            return;
        };
        let (to, from) = (
            found.ends[side].address.ip(),
            found.ends[1 - side].address.ip(),
        );
        let weather = &self.weather;
        let mut takes = self.rng.duration(weather.latency.0..=weather.latency.1);
        if !weather.extra.is_zero() {
            takes += self.rng.duration(Duration::ZERO..=weather.extra);
        }
        if weather.reorder > 0 && self.rng.chance(weather.reorder) {
            takes += self.rng.duration(Duration::ZERO..=weather.latency.1 * 20);
        }
        if weather.loss > 0 && self.rng.chance(weather.loss) {
            takes += self.rng.duration(RESEND.0..=RESEND.1);
            self.figures.lost += 1;
        }
        self.figures.segments += 1;
        let sequence = self.sequence;
        self.sequence += 1;
        self.under_way.push(Reverse(Parcel {
            at: self.now + takes,
            sequence,
            from,
            to,
            connection,
            side,
            what,
        }));
    }

    fn arrive(&mut self, parcel: Parcel) {
        let length = match &parcel.what {
            What::Segment(number, Segment::Data(bytes)) => (number << 32) | bytes.len() as u64,
            What::Segment(number, Segment::Fin) => number << 32,
            What::Open => 1 << 62,
            What::Opened => 2 << 62,
            What::Reset => 3 << 62,
        };
        let micros = u64::try_from(parcel.at.as_micros()).unwrap_or(u64::MAX);
        self.hash = mix(mix(mix(self.hash, micros), parcel.connection), length);
        if self.machine(parcel.to).silent {
            return;
        }
        match parcel.what {
            What::Open => self.opens(parcel.connection),
            What::Opened => self.opened(parcel.connection),
            What::Segment(number, segment) => {
                self.receives(parcel.connection, parcel.side, number, segment);
            }
            What::Reset => self.resets(parcel.connection, parcel.side),
        }
    }

    fn opens(&mut self, connection: u64) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let address = found.ends[1].address;
        let Some(waiting) = self.listeners.get_mut(&address) else {
            self.send(connection, 0, What::Reset);
            return;
        };
        found.ends[1].gone = false;
        found.ends[1].boot = waiting.boot;
        waiting.accepted.push_back(connection);
        self.wake.extend(waiting.waker.take());
        self.send(connection, 0, What::Opened);
        // What was sent with it may have come first.
        self.take_in(connection, 1);
    }

    fn opened(&mut self, connection: u64) {
        if let Some(found) = self.connections.get_mut(&connection)
            && found.opened == Opening::Asked
        {
            found.opened = Opening::Open;
            self.wake.extend(found.opener.take());
        }
    }

    fn receives(&mut self, connection: u64, side: usize, number: u64, segment: Segment) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let [here, _] = found.pair(side);
        if here.reset {
            return;
        }
        here.early.insert(number, segment);
        if here.gone {
            // The end may not be taken yet: its opening is still under way.
            let early = side == 1 && here.boot == 0;
            let data = matches!(here.early.last_key_value(), Some((_, Segment::Data(_))));
            if !early && data {
                self.send(connection, 1 - side, What::Reset);
            }
            return;
        }
        self.take_in(connection, side);
    }

    /// Puts what is in order where it is read.
    fn take_in(&mut self, connection: u64, side: usize) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        let [here, _] = found.pair(side);
        while let Some(segment) = here.early.remove(&here.expected) {
            here.expected += 1;
            match segment {
                Segment::Data(bytes) => here.inbox.push_back(bytes),
                Segment::Fin => here.ended = true,
            }
        }
        if here.ended || !here.inbox.is_empty() {
            self.wake.extend(here.reader.take());
        }
    }

    fn resets(&mut self, connection: u64, side: usize) {
        let Some(found) = self.connections.get_mut(&connection) else {
            return;
        };
        if found.opened == Opening::Asked && side == 0 {
            found.opened = Opening::Refused;
            self.wake.extend(found.opener.take());
        }
        let [here, _] = found.pair(side);
        here.reset = true;
        here.inbox.clear();
        here.early.clear();
        self.wake.extend(here.reader.take());
        self.wake.extend(here.writer.take());
    }
}

/// Tells whether `bytes` begin a message between members that may well arrive twice.
fn is_peer_message(bytes: &[u8]) -> bool {
    const KINDS: [&[u8]; 4] = [b"append", b"vote", b"pre-vote", b"heartbeat"];
    bytes
        .strip_prefix(b"POST /peer/v1/")
        .is_some_and(|rest| KINDS.iter().any(|kind| rest.starts_with(kind)))
}
