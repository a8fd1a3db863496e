import type { Socket } from 'node:net';
import type { ServerChannel } from 'ssh2';
import { sendEof } from '../protocol/ssh2-internals.ts';

/**
 * Joins a forwarded channel and a socket (opened with `allowHalfOpen`). Each direction ends separately: a peer that has
 * finished sending still gets its answer, and data that a socket sent before it failed still reaches the client. `done` is
 * called once, when both have closed.
 */
export function splice(channel: ServerChannel, socket: Socket, done: () => void = () => {}): void {
  let toSocket = true;
  let toChannel = true;
  let ending = false;
  let finished = false;

  function finish() {
    if (finished) return;
    finished = true;
    socket.unpipe(channel);
    socket.resume();
    // What the client sent last still goes out.
    socket.destroySoon();
    channel.destroy();
    done();
  }
  function half() {
    if (!toSocket && !toChannel) finish();
  }

  channel.pipe(socket);
  channel.once('end', () => {
    toSocket = false;
    half();
  });

  socket.pipe(channel, { end: false });
  /** Nothing more comes from the socket. */
  function flush() {
    if (ending || finished) return;
    ending = true;
    // An empty write comes after all that is queued: only then may EOF follow.
    channel.write(Buffer.alloc(0), () => {
      if (finished) return;
      sendEof(channel);
      toChannel = false;
      half();
    });
  }
  socket.once('end', flush);
  socket.on('error', () => {});
  socket.once('close', () => {
    // It takes nothing more either; what the client still sends is thrown away.
    channel.unpipe(socket);
    channel.resume();
    toSocket = false;
    flush();
    half();
  });

  channel.on('error', finish);
  channel.on('close', finish);
}
