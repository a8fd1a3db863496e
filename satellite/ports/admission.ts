import ipaddr from 'ipaddr.js';
import { busy } from './problems.ts';

/** Concurrent connections to the ports of one workspace, so that one cannot use up this process. */
const maxConnections = 250;
/** Reserved for signed-in users, so that anonymous visitors cannot lock them out. */
const reservedForUsers = 50;
/** Per visitor. A browser opens six connections per host name and a WebSocket or two per tab. */
const maxPerVisitor = 100;
/** Requests beyond the limits are queued, which absorbs bursts: at most this many per visitor and in total. */
const maxWaitingPerVisitor = 150;
const maxWaiting = 500;
const maxWaitMs = 30_000;

export interface Visitor {
  /** Identifies who shares the limit: a user, or the network of an anonymous visitor. */
  key: string;
  isSignedIn: boolean;
}

/** Signed-in visitors are identified by `userKey`, others by address; for IPv6 by the /64, which a single host owns. */
export function visitorOf(userKey: string | null | undefined, clientIp: string): Visitor {
  if (userKey) return { key: `user ${userKey}`, isSignedIn: true };
  return { key: `address ${networkOf(clientIp)}`, isSignedIn: false };
}

function networkOf(clientIp: string): string {
  if (!ipaddr.isValid(clientIp)) return clientIp;
  const address = ipaddr.process(clientIp);
  if (!(address instanceof ipaddr.IPv6)) return address.toString();
  return address.parts
    .slice(0, 4)
    .map((part) => part.toString(16))
    .join(':');
}

interface QueuedVisitor {
  visitor: Visitor;
  admit: () => void;
}

/** Connections to the ports of one workspace. */
interface Workspace {
  open: Map<string, number>;
  users: number;
  anonymous: number;
  waiting: QueuedVisitor[];
}

/** Shares the connections to each workspace's ports fairly among its visitors. */
export function makeAdmission() {
  const workspaces = new Map<string, Workspace>();

  const hasCapacity = ({ open, users, anonymous }: Workspace, { key, isSignedIn }: Visitor) =>
    users + anonymous < maxConnections &&
    (isSignedIn || anonymous < maxConnections - reservedForUsers) &&
    (open.get(key) ?? 0) < maxPerVisitor;

  function count(workspace: Workspace, { key, isSignedIn }: Visitor, by: 1 | -1) {
    workspace[isSignedIn ? 'users' : 'anonymous'] += by;
    const left = (workspace.open.get(key) ?? 0) + by;
    if (left > 0) workspace.open.set(key, left);
    else workspace.open.delete(key);
  }

  /** Signed-in users first: unlike addresses they cannot be multiplied. */
  function next(workspace: Workspace): QueuedVisitor | undefined {
    const { waiting } = workspace;
    const fits = ({ visitor }: QueuedVisitor) => hasCapacity(workspace, visitor);
    return waiting.find((one) => one.visitor.isSignedIn && fits(one)) ?? waiting.find(fits);
  }

  function makeRelease(id: string, workspace: Workspace, visitor: Visitor): () => void {
    let released = false;
    return () => {
      if (released) return;
      released = true;
      count(workspace, visitor, -1);
      next(workspace)?.admit();
      const isUnused = workspace.users + workspace.anonymous + workspace.waiting.length === 0;
      if (isUnused && workspaces.get(id) === workspace) workspaces.delete(id);
    };
  }

  return {
    /**
     * Resolves with a function that releases the connection; rejects with a Problem if none becomes free in time.
     * `signal` cancels the wait when the visitor disconnects.
     */
    async admit(id: string, visitor: Visitor, signal: AbortSignal): Promise<() => void> {
      const workspace = workspaces.get(id) ?? { open: new Map(), users: 0, anonymous: 0, waiting: [] };
      workspaces.set(id, workspace);
      if (!hasCapacity(workspace, visitor)) await wait(workspace, visitor, signal);
      else count(workspace, visitor, 1);
      return makeRelease(id, workspace, visitor);
    },
  };

  function wait(workspace: Workspace, visitor: Visitor, signal: AbortSignal): Promise<void> {
    const { waiting } = workspace;
    const ofVisitor = waiting.filter((one) => one.visitor.key === visitor.key).length;
    const ofKind = waiting.filter((one) => one.visitor.isSignedIn === visitor.isSignedIn).length;
    const full =
      ofVisitor >= maxWaitingPerVisitor || ofKind >= maxWaiting / 2 || waiting.length >= maxWaiting;
    if (full || signal.aborted) return Promise.reject(tooMany(workspace, visitor));
    return new Promise((resolve, reject) => {
      const leave = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', giveUp);
        waiting.splice(waiting.indexOf(one), 1);
      };
      const giveUp = () => {
        leave();
        reject(tooMany(workspace, visitor));
      };
      const one: QueuedVisitor = {
        visitor,
        admit() {
          leave();
          // Counted at once, so that no one else is admitted in its place.
          count(workspace, visitor, 1);
          resolve();
        },
      };
      const timer = setTimeout(giveUp, maxWaitMs);
      signal.addEventListener('abort', giveUp);
      waiting.push(one);
    });
  }
}

const tooMany = ({ open }: Workspace, { key, isSignedIn }: Visitor) =>
  busy(
    (open.get(key) ?? 0) >= maxPerVisitor
      ? `${maxPerVisitor} connections to the ports of this workspace are already open from ${isSignedIn ? 'your account' : 'your address'}.`
      : 'All connections to the ports of this workspace are in use.',
  );
