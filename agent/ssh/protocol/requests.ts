/**
 * Parses messages that ssh2 handles badly: it ends the whole connection if one is malformed, decodes commands and variables
 * as text (losing bytes that are not UTF-8), ignores `eow@openssh.com`, leaves requests unanswered once the session has
 * begun, and drops terminal modes. A message that is invalid here only fails its own request or channel.
 */
import type { Connection, Session } from 'ssh2';
import handlers from 'ssh2/lib/protocol/handlers.js';
import { makeReader, type Reader } from '../../sftp/packets.ts';

/** A client's terminal modes (RFC 4254, section 8): opcode → value. */
export type TerminalModes = Map<number, number>;

export type SessionRequest =
  | { type: 'env'; name: string; value: Buffer }
  | { type: 'pty'; term: string; columns: number; rows: number; modes: TerminalModes }
  | { type: 'window-change'; columns: number; rows: number }
  | { type: 'signal'; name: string }
  | { type: 'auth-agent' }
  /** The client does not read output any longer (`eow@openssh.com`). */
  | { type: 'end-of-write' };

/** Returns true if the request is accepted. */
export type SessionRequestHandler = (request: SessionRequest) => boolean;

const messages = { globalRequest: 80, channelOpen: 90, channelOpenConfirmation: 91, channelRequest: 98 };
const refusals = { connectFailed: 2 };

interface Protocol {
  _server: boolean;
  _handlers: {
    CHANNEL_REQUEST(
      protocol: unknown,
      recipient: number,
      type: string,
      wantReply: boolean,
      data: Buffer | string | null,
    ): void;
  };
  channelSuccess(id: number): void;
  channelFailure(id: number): void;
  channelOpenFail(id: number, reason: number, description: string): void;
  requestFailure(): void;
}

interface SessionInternals {
  _channel?: unknown;
  _ending: boolean;
  _chanInfo?: { outgoing: { id: number; state: string } };
}

interface ConnectionInternals {
  _protocol: Protocol;
  _chanMgr: { get(id: number): unknown };
}

const connections = new WeakMap<Protocol, ConnectionInternals>();
const sessionHandlers = new WeakMap<object, SessionRequestHandler>();

/** Registers the connection, so that requests find their sessions. */
export function trackRequests(connection: Connection): void {
  const internals = connection as unknown as ConnectionInternals;
  connections.set(internals._protocol, internals);
}

export function onSessionRequest(session: Session, handler: SessionRequestHandler): void {
  sessionHandlers.set(session, handler);
}

let hooked = false;

/** Replaces ssh2's handlers of these messages for servers. */
export function hookRequests(): void {
  if (hooked) return;
  hooked = true;
  hook(messages.channelRequest, readChannelRequest);
  hook(messages.globalRequest, readGlobalRequest);
  hook(messages.channelOpen, readChannelOpen);
  hook(messages.channelOpenConfirmation, readChannelOpenConfirmation);
}

type Next = () => unknown;

function hook(message: number, read: (protocol: Protocol, payload: Buffer, next: Next) => unknown): void {
  const handle = handlers[message]!;
  handlers[message] = (protocol, payload) => {
    const next = () => handle(protocol, payload);
    return (protocol as Protocol)._server ? read(protocol as Protocol, payload, next) : next();
  };
}

/** Returns null if the message is too short for its fields. */
function readOrNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}

function readChannelRequest(protocol: Protocol, payload: Buffer): undefined {
  const reader = makeReader(payload, 1);
  const head = readOrNull(() => ({
    recipient: reader.uint32(),
    type: reader.bytes().toString('latin1'),
    wantReply: reader.byte() !== 0,
  }));
  if (!head) return;
  const session = connections.get(protocol)?._chanMgr.get(head.recipient) as SessionInternals | undefined;
  const forwarded = (session as { outgoing?: { id: number } } | undefined)?.outgoing;
  const remote = session?._chanInfo?.outgoing ?? forwarded;
  if (!session || !remote) return;
  const handler = sessionHandlers.get(session);
  const reply = (accepted: boolean) => {
    if (!head.wantReply) return;
    if (accepted) protocol.channelSuccess(remote.id);
    else protocol.channelFailure(remote.id);
  };
  if (!handler) return reply(false) as undefined;

  if (head.type === 'shell' || head.type === 'exec' || head.type === 'subsystem') {
    const data = readOrNull(() => (head.type === 'shell' ? null : reader.bytes()));
    if (session._channel || session._ending || (data === null && head.type !== 'shell')) {
      return reply(false) as undefined;
    }
    const given = head.type === 'subsystem' ? data!.toString('latin1') : data;
    protocol._handlers.CHANNEL_REQUEST(protocol, head.recipient, head.type, head.wantReply, given);
    return;
  }
  const request = readOrNull(() => readSessionRequest(head.type, reader));
  reply(request !== null && handler(request));
}

/** Null for an unknown type. */
function readSessionRequest(type: string, reader: Reader): SessionRequest | null {
  switch (type) {
    case 'env':
      return { type, name: reader.bytes().toString('latin1'), value: reader.bytes() };
    case 'pty-req': {
      const term = reader.bytes().toString('latin1');
      const [columns, rows] = readSize(reader);
      return { type: 'pty', term, columns, rows, modes: readModes(reader.bytes()) };
    }
    case 'window-change': {
      const [columns, rows] = readSize(reader);
      return { type, columns, rows };
    }
    case 'signal':
      return { type, name: reader.bytes().toString('latin1') };
    case 'auth-agent-req@openssh.com':
      return { type: 'auth-agent' };
    case 'eow@openssh.com':
      return { type: 'end-of-write' };
    default:
      return null;
  }
}

function readSize(reader: Reader): [columns: number, rows: number] {
  const columns = reader.uint32();
  const rows = reader.uint32();
  // In pixels, which nothing here uses.
  reader.uint32();
  reader.uint32();
  return [columns, rows];
}

/** Reads up to the first opcode without a value. Unknown opcodes below 160 have one. */
function readModes(list: Buffer): TerminalModes {
  const modes: TerminalModes = new Map();
  for (let at = 0; at + 5 <= list.length; at += 5) {
    const opcode = list[at]!;
    if (opcode === 0 || opcode >= 160) break;
    modes.set(opcode, list.readUInt32BE(at + 1));
  }
  return modes;
}

function readGlobalRequest(protocol: Protocol, payload: Buffer, next: Next): unknown {
  const reader = makeReader(payload, 1);
  const head = readOrNull(() => ({
    name: reader.bytes().toString('latin1'),
    wantReply: reader.byte() !== 0,
  }));
  if (!head) return;
  const isRead = readOrNull(() => {
    if (head.name.endsWith('tcpip-forward')) return isText(reader.bytes()) && reader.uint32() < 65536;
    if (head.name.includes('streamlocal-forward')) return isText(reader.bytes());
    return true;
  });
  if (isRead) return next();
  if (head.wantReply) protocol.requestFailure();
}

function readChannelOpen(protocol: Protocol, payload: Buffer, next: Next): unknown {
  const reader = makeReader(payload, 1);
  const head = readOrNull(() => {
    const type = reader.bytes().toString('latin1');
    const sender = reader.uint32();
    reader.uint32();
    // ssh2 splits output into packets of this size, in an endless loop if it is zero.
    return { type, sender, hasPackets: reader.uint32() > 0 };
  });
  if (!head) return;
  const isRead = readOrNull(() => {
    if (head.type === 'direct-tcpip') {
      const isTarget = isText(reader.bytes()) && reader.uint32() < 65536;
      reader.bytes();
      reader.uint32();
      return isTarget;
    }
    return head.type !== 'direct-streamlocal@openssh.com' || isText(reader.bytes());
  });
  if (isRead && head.hasPackets) return next();
  protocol.channelOpenFail(head.sender, refusals.connectFailed, 'the request is not valid');
}

function readChannelOpenConfirmation(_protocol: Protocol, payload: Buffer, next: Next): unknown {
  const packetSizeAt = 13;
  if (payload.length < packetSizeAt + 4) return;
  if (payload.readUInt32BE(packetSizeAt) === 0) {
    // A channel that accepts no packets: with an empty window ssh2 sends none.
    payload.writeUInt32BE(0, packetSizeAt - 4);
    payload.writeUInt32BE(1, packetSizeAt);
  }
  return next();
}

/** Host and socket names become strings in Node; those that cannot be represented are rejected, not altered. */
function isText(bytes: Buffer): boolean {
  return !bytes.includes(0) && Buffer.from(bytes.toString('utf8')).equals(bytes);
}
