import type { Socket } from 'node:net';
import type { ServerChannel } from 'ssh2';
import { sendEof } from './gaps.ts';

/**
 * Joins a forwarded channel and a socket (opened with `allowHalfOpen`), each direction ending by itself:
 * a peer that has finished sending still gets its answer. `done` is called once, when both are closed.
 */
export function splice(channel: ServerChannel, socket: Socket, done: () => void = () => {}): void {
  let halves = 0;
  let finished = false;

  function finish() {
    if (finished) return;
    finished = true;
    // What the client sent last still reaches the socket; nothing more is read from it.
    socket.unpipe(channel);
    socket.resume();
    socket.destroySoon();
    channel.destroy();
    done();
  }
  function half() {
    halves += 1;
    if (halves === 2) finish();
  }

  channel.pipe(socket);
  channel.once('end', half);

  socket.pipe(channel, { end: false });
  // An empty write comes after all that is queued: only then may EOF follow.
  socket.once('end', () => {
    channel.write(Buffer.alloc(0), () => {
      sendEof(channel);
      half();
    });
  });

  socket.on('error', finish);
  socket.on('close', finish);
  channel.on('error', finish);
  channel.on('close', finish);
}
