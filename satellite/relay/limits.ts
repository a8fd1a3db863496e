import type { Rate } from '@cde/tunnel/network/token-bucket.ts';

export interface RelayLimits {
  /** Idle agent sockets per workspace; further ones are rejected. */
  sparesPerWorkspace: number;
  /** Clients per workspace that are waiting for an agent. */
  waitingDialsPerWorkspace: number;
  /** Open sessions per workspace. */
  sessionsPerWorkspace: number;
  /** Client sockets per user across all workspaces, so that one user cannot use up the satellite. */
  socketsPerUser: number;
  /** Listening and dialling sockets of the whole satellite. */
  sockets: number;
  /** How long a dial waits for an agent: longer than an agent needs to replace a spare over a bad network. */
  dialWaitMs: number;
  /** Bytes buffered per direction of a session before its sender is paused. */
  bufferedBytes: number;
  /** Bytes a client may send before it is paired: enough for a TLS ClientHello. */
  earlyBytes: number;
  /**
   * Small messages, per user and per workspace's agents. A program that sends one byte at a time through a forwarded port
   * reaches about 10,000 a second; at this rate they cost a fifth of a core.
   */
  smallMessages: Rate;
  /** A workspace counts as connected for this long without a socket, so that replacing a spare is not reported. */
  presenceGraceMs: number;
}

export const defaultRelayLimits: RelayLimits = {
  sparesPerWorkspace: 8,
  waitingDialsPerWorkspace: 16,
  sessionsPerWorkspace: 256,
  socketsPerUser: 512,
  sockets: 50_000,
  dialWaitMs: 5_000,
  bufferedBytes: 1024 * 1024,
  earlyBytes: 64 * 1024,
  smallMessages: { perSecond: 30_000, burst: 5_000 },
  presenceGraceMs: 2_000,
};
