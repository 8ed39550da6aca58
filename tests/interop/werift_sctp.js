// A peer on the package werift-sctp, for test_sctp.py: it echoes what comes, on the stream that it came on, or says what
// it was asked to.
//
//     node werift_sctp.js MODULES SCTP_PORT listen
//     node werift_sctp.js MODULES SCTP_PORT connect UDP_PORT MESSAGE_SIZE...
//
// Prints "udp PORT" once it is bound, "connected", and for each message "received STREAM PPID SIZE FIRST_BYTE".
"use strict";

const { createSocket } = require("dgram");

const [modules, port, role, peerPort, ...sizes] = process.argv.slice(2);
const { SCTP, createUdpTransport } = require(`${modules}/werift-sctp`);

const say = (...words) => console.log(words.join(" "));
const socket = createSocket("udp4");

socket.bind(0, "127.0.0.1", async () => {
  say("udp", socket.address().port);
  const peer = role === "connect" ? { port: Number(peerPort), address: "127.0.0.1" } : {};
  const transport = createUdpTransport(socket, peer);
  const association = role === "connect" ? SCTP.client(transport, Number(port)) : SCTP.server(transport, Number(port));
  association.onReceive.subscribe(async (stream, ppid, data) => {
    say("received", stream, ppid, data.length, data[0]);
    if (role === "listen") await association.send(stream, ppid, data);
  });
  association.stateChanged.connected.subscribe(async () => {
    say("connected");
    for (const [index, size] of sizes.entries()) await association.send(0, 50 + index, Buffer.alloc(Number(size), index));
  });
  association.stateChanged.closed.subscribe(() => say("closed"));
  await association.start(Number(port));
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
