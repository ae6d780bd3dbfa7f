//! hyper, which axum, warp and tonic are built on, as its documentation stops it: with_graceful_shutdown.

use hyper::service::{make_service_fn, service_fn};
use hyper::{body, Body, Request, Response, Server};
use std::os::unix::io::FromRawFd;
use std::{env, error::Error, fs::File, io::Write, net::TcpListener, time::Duration};
use tokio::signal::unix::{signal, SignalKind};

async fn hello(request: Request<Body>) -> hyper::Result<Response<Body>> {
    let slow = request.uri().path() == "/slow";
    body::to_bytes(request).await?;
    if slow {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    Ok(Response::new(format!("hello from Rust, generation {}\n", env::var("CRANK_GENERATION").unwrap()).into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    listener.set_nonblocking(true)?;
    let mut term = signal(SignalKind::terminate())?;
    let service = make_service_fn(|_| async { hyper::Result::Ok(service_fn(hello)) });
    let server = Server::from_tcp(listener)?.serve(service).with_graceful_shutdown(async move {
        term.recv().await;
    });
    unsafe { File::from_raw_fd(env::var("NOTIFY_FD")?.parse()?) }.write_all(b"READY=1")?;
    Ok(server.await?)
}
