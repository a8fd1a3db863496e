import { z } from 'zod';
import { Id, maxInteger } from './names.ts';
import { Build, LogLine, Workspace } from './workspaces.ts';

/** WebSocket `/api/v1/events`: a client receives events only for the topics that it subscribed to. */
export const ClientMessage = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('subscribe'),
    topic: z.string().max(120).describe('`workspaces` (all that you can see), `workspace:ID`, `build:ID`'),
  }),
  z.object({ type: z.literal('unsubscribe'), topic: z.string().max(120) }),
]);
export type ClientMessage = z.infer<typeof ClientMessage>;

export const ServerMessage = z.discriminatedUnion('type', [
  z.object({ type: z.literal('subscribed'), topic: z.string() }),
  z.object({ type: z.literal('workspace'), topic: z.string(), workspace: Workspace }),
  z.object({ type: z.literal('workspace-gone'), topic: z.string(), id: Id }),
  z.object({ type: z.literal('build'), topic: z.string(), build: Build }),
  z.object({ type: z.literal('log'), topic: z.string(), buildId: Id, lines: z.array(LogLine) }),
  /** This subscriber missed events (it was slow, or the database was unreachable) and has to fetch again. */
  z.object({ type: z.literal('resync'), topic: z.string() }),
  z.object({ type: z.literal('error'), topic: z.string().optional(), code: z.string(), message: z.string() }),
]);
export type ServerMessage = z.infer<typeof ServerMessage>;

const side = z.number().int().min(1).max(1000);
/** Columns and rows of characters. */
export const TerminalSize = z.object({ cols: side, rows: side });
export type TerminalSize = z.infer<typeof TerminalSize>;

/**
 * WebSocket `/api/v1/workspaces/:workspace/terminal?cols&rows`: binary frames carry the terminal's bytes in both
 * directions, text frames these messages. `opened`: the shell runs. If the connection ends before, the client can try
 * another route.
 */
export const TerminalMessage = z.discriminatedUnion('type', [
  TerminalSize.extend({ type: z.literal('resize') }),
  z.object({ type: z.literal('opened') }),
  z.object({
    type: z.literal('exit'),
    code: z.number().int().min(-1).max(maxInteger).nullable(),
    message: z.string().max(10_000),
  }),
]);
export type TerminalMessage = z.infer<typeof TerminalMessage>;

/** The close code of a WebSocket whose user has lost access. */
export const accessRevokedCloseCode = 4401;
