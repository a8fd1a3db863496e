import type { RelayCloseCode } from '@cde/tunnel/paths/relay-protocol.ts';
import type WebSocket from 'ws';
import type { RelayLimits } from './limits.ts';
import { rejectPeer } from './peer.ts';
import type { Spare, WaitingDial, WaitingSocket, WorkspaceState } from './workspaces.ts';

/** Lets an agent's socket wait for a client. `onLeave` is called when it no longer waits. */
export function addSpare(
  workspace: WorkspaceState,
  socket: WebSocket,
  buildId: string,
  onLeave: () => void,
): void {
  // Our agents send nothing before they are paired.
  const onMessage = () => spare.leave(4400);
  const spare: Spare = { socket, buildId, leave: makeLeave(socket, onMessage, removed) };
  function removed(): void {
    remove(workspace.spares, spare);
    onLeave();
  }
  workspace.spares.push(spare);
}

/** Lets a client's socket wait for an agent, for a limited time. `onLeave` is called when it no longer waits. */
export function addDial(
  workspace: WorkspaceState,
  client: Omit<WaitingDial, 'leave'>,
  limits: Pick<RelayLimits, 'earlyBytes' | 'dialWaitMs'>,
  onLeave: () => void,
): void {
  // A client sends its TLS ClientHello and then waits for the answer.
  let earlyBytes = 0;
  const onMessage = (data: WebSocket.RawData, isBinary: boolean) => {
    const chunk = data as Buffer;
    earlyBytes += chunk.length;
    if (!isBinary || dial.early.length >= 16 || earlyBytes > limits.earlyBytes) dial.leave(4400);
    else dial.early.push(chunk);
  };
  const dial: WaitingDial = { ...client, leave: makeLeave(client.socket, onMessage, removed) };
  const timer = setTimeout(() => dial.leave(4404), limits.dialWaitMs);
  function removed(): void {
    clearTimeout(timer);
    remove(workspace.dials, dial);
    onLeave();
  }
  workspace.dials.push(dial);
}

/** Listens to a waiting socket until it leaves: by itself, when it is paired, or because it is closed with a code. */
function makeLeave(
  socket: WebSocket,
  onMessage: (data: WebSocket.RawData, isBinary: boolean) => void,
  removed: () => void,
): WaitingSocket['leave'] {
  const onClose = () => leave();
  function leave(code?: RelayCloseCode): void {
    socket.off('close', onClose);
    socket.off('message', onMessage);
    if (code) rejectPeer(socket, code);
    removed();
  }
  socket.once('close', onClose);
  socket.on('message', onMessage);
  return leave;
}

function remove<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}
