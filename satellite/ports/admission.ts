import ipaddr from 'ipaddr.js';
import { busy } from './problems.ts';

/** Connections at once to the ports of one workspace: one workspace must not take the others' share of this process. */
const maxConnections = 250;
/** Of these, kept free for people who are signed in: anonymous visitors alone cannot shut them out. */
const reservedForUsers = 50;
/** Of one visitor. A browser opens six connections to a name, and a WebSocket or two for each tab. */
const maxPerVisitor = 100;
/** A burst of short requests beyond the visitor's share waits for its turn; so many of one visitor do, and of all. */
const maxWaitingPerVisitor = 150;
const maxWaiting = 500;
const maxWaitMs = 30_000;

export interface Visitor {
  /** What shares one share: a user, or the network of an anonymous visitor. */
  key: string;
  isSignedIn: boolean;
}

/** `userKey`: who it is, for those who are signed in. Others are their address; of IPv6 the /64, which one host has whole. */
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

/** Divides the connections to each workspace's ports between its visitors. */
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

  /** Those who are signed in first: they cannot be multiplied by taking more addresses. */
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
     * Resolves with what gives the place back, once there is one; rejects with a Problem when there is none for too long.
     * `signal` ends the wait of a visitor who has left.
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
          // At once, so that nobody else takes the place.
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
      ? `${maxPerVisitor} connections to the ports of this workspace are open from ${isSignedIn ? 'your account' : 'your address'} already.`
      : `All connections to the ports of this workspace are taken.`,
  );
