import {
  type Entries,
  type Entry,
  type FileEntry,
  type LinkEntry,
  sameEntry,
} from '@cde/filesync/entries.ts';

export type SideName = 'local' | 'remote';
export const otherSide = (side: SideName): SideName => (side === 'local' ? 'remote' : 'local');

/**
 * One change of one side. `replaces` and `entry` say what must be there before it; so a plan that is old by now
 * changes nothing. Of `copy`, `source` is what the other side must have.
 */
export type Action =
  /** Keeps a conflict's version under another name. */
  | { do: 'rename'; side: SideName; path: string; to: string; entry: Entry }
  | { do: 'remove'; side: SideName; path: string; entry: Entry }
  /** `mode`: the permissions of the folder on the other side, if they are known. */
  | { do: 'folder'; side: SideName; path: string; mode?: number }
  | {
      do: 'copy';
      side: SideName;
      path: string;
      entry: FileEntry;
      source: FileEntry;
      replaces: Entry | null;
    }
  | { do: 'link'; side: SideName; path: string; entry: LinkEntry; replaces: Entry | null }
  | { do: 'mode'; side: SideName; path: string; entry: FileEntry; replaces: FileEntry };

export interface Plan {
  /** Renames first, then removals (what a folder holds before it), folders (before what they hold), rights, contents. */
  actions: Action[];
  /** What both sides have agreed on: the state to keep, once changed by what the actions achieve (`applyToBase`). */
  base: Entries;
}

export type Trees = Record<'base' | SideName, Entries>;

interface Node {
  base: Entry | undefined;
  local: Entry | undefined;
  remote: Entry | undefined;
  unknown: boolean;
  children: Map<string, Node>;
}

/**
 * What makes two trees the same, given what both were when they last agreed. What one side alone has changed goes to the
 * other; a deletion too, unless the other side has changed what it would delete: a change is worth more. Where both
 * have changed a path in different ways, the local one keeps its name and the remote one is renamed
 * (`conflictName`), for the next round to copy. Paths in `unknown`, and all below them, are left as they are.
 */
export function reconcile(
  trees: Trees,
  options: {
    unknown: ReadonlySet<string>;
    conflictName: (path: string, taken: (path: string) => boolean) => string;
  },
): Plan {
  const root = makeNode();
  for (const side of ['base', 'local', 'remote'] as const)
    for (const [path, entry] of trees[side]) nodeAt(root, path)[side] = entry;
  for (const path of options.unknown) if (path !== '') nodeAt(root, path).unknown = true;
  const base: Entries = new Map();
  const phases: Record<'renames' | 'removals' | 'folders' | 'modes' | 'contents', Action[]> = {
    renames: [],
    removals: [],
    folders: [],
    modes: [],
    contents: [],
  };
  const given = new Set<string>();
  const taken = (path: string) => trees.local.has(path) || trees.remote.has(path) || given.has(path);

  for (const path of options.unknown) keepBase(path === '' ? root : nodeAt(root, path), path);
  // The roots themselves are folders on both sides.
  if (!options.unknown.has('')) visitChildren(root, '');

  function visitChildren(node: Node, path: string): void {
    for (const [name, child] of node.children) visit(child, path === '' ? name : `${path}/${name}`);
  }

  function visit(node: Node, path: string): void {
    if (node.unknown) return;
    const { base: was, local, remote } = node;
    if (sameEntry(local, remote)) {
      if (local) base.set(path, local);
      visitChildren(node, path);
      return;
    }
    if (was) base.set(path, was);
    if (sameEntry(remote, was)) propagate(node, path, 'remote');
    else if (sameEntry(local, was)) propagate(node, path, 'local');
    // A deletion against a change: the change wins.
    else if (!local) propagate(node, path, 'local');
    else if (!remote) propagate(node, path, 'remote');
    else merge(node, path, local, remote);
  }

  function merge(node: Node, path: string, local: Entry, remote: Entry): void {
    const merged = mergeFiles(node.base, local, remote);
    if (!merged) conflict(node, path);
    else {
      toMerged('local', path, local as FileEntry, merged);
      toMerged('remote', path, remote as FileEntry, merged);
    }
  }

  /** Makes `to` as the other side is. */
  function propagate(node: Node, path: string, to: SideName): void {
    const from = otherSide(to);
    const source = node[from];
    const there = node[to];
    if (there?.kind === 'folder') {
      if (isUntouched(node, to)) {
        removeTree(node, path, to);
        create(node, path, to, null);
      } else if (source) conflict(node, path);
      else {
        // Something in it has changed: it stays, with that and nothing else.
        phases.folders.push(folderAction(node, path, from));
        visitChildren(node, path);
      }
      return;
    }
    if (!source) {
      if (there) phases.removals.push({ do: 'remove', side: to, path, entry: there });
      return;
    }
    if (source.kind !== 'folder') {
      if (source.kind === 'file' && there?.kind === 'file' && source.hash === there.hash)
        phases.modes.push({ do: 'mode', side: to, path, entry: source, replaces: there });
      else create(node, path, to, there ?? null);
      return;
    }
    if (there) phases.removals.push({ do: 'remove', side: to, path, entry: there });
    phases.folders.push(folderAction(node, path, to));
    visitChildren(node, path);
  }

  /** Both stay, the remote one under another name. */
  function conflict(node: Node, path: string): void {
    const to = options.conflictName(path, taken);
    given.add(to);
    phases.renames.push({ do: 'rename', side: 'remote', path, to, entry: node.remote! });
    create(node, path, 'remote', null);
  }

  /** Makes what the other side has, with all below, where nothing is (or only what it replaces). */
  function create(node: Node, path: string, to: SideName, replaces: Entry | null): void {
    const entry = node[otherSide(to)];
    if (!entry || node.unknown) return;
    if (entry.kind === 'folder') {
      phases.folders.push(folderAction(node, path, to));
      for (const [name, child] of node.children) create(child, `${path}/${name}`, to, null);
    } else if (entry.kind === 'file')
      phases.contents.push({ do: 'copy', side: to, path, entry, source: entry, replaces });
    else phases.contents.push({ do: 'link', side: to, path, entry, replaces });
  }

  function removeTree(node: Node, path: string, side: SideName): void {
    for (const [name, child] of node.children) if (child[side]) removeTree(child, `${path}/${name}`, side);
    // Remains until it is done.
    if (node.base) base.set(path, node.base);
    phases.removals.push({ do: 'remove', side, path, entry: node[side]! });
  }

  function keepBase(node: Node, path: string): void {
    if (node.base) base.set(path, node.base);
    for (const [name, child] of node.children) keepBase(child, path === '' ? name : `${path}/${name}`);
  }

  function toMerged(side: SideName, path: string, own: FileEntry, merged: FileEntry): void {
    if (sameEntry(own, merged)) return;
    if (own.hash === merged.hash) phases.modes.push({ do: 'mode', side, path, entry: merged, replaces: own });
    // By then the other side is as both are to be.
    else phases.contents.push({ do: 'copy', side, path, entry: merged, source: merged, replaces: own });
  }

  return {
    actions: [...phases.renames, ...phases.removals, ...phases.folders, ...phases.modes, ...phases.contents],
    base,
  };
}

/** Content and right to run are two things: each side may have changed one. Null where both changed the content. */
function mergeFiles(was: Entry | undefined, local: Entry, remote: Entry): FileEntry | null {
  if (local.kind !== 'file' || remote.kind !== 'file') return null;
  const old = was?.kind === 'file' ? was : null;
  const content =
    local.hash === remote.hash || remote.hash === old?.hash
      ? local
      : local.hash === old?.hash
        ? remote
        : null;
  if (!content) return null;
  const changed = [local, remote].find(({ executable }) => executable !== old?.executable);
  const executable =
    local.executable === remote.executable ? local.executable : old ? changed!.executable : true;
  return { ...content, executable };
}

/** Whether a side has nothing in this subtree but what both agreed on; less of it is no change that could be lost. */
function isUntouched(node: Node, side: SideName): boolean {
  if (node.unknown || !sameEntry(node[side], node.base)) return false;
  for (const child of node.children.values())
    if (child.unknown || (child[side] && !isUntouched(child, side))) return false;
  return true;
}

function folderAction(node: Node, path: string, side: SideName): Action {
  const source = node[otherSide(side)];
  const mode = source?.kind === 'folder' ? source.mode : undefined;
  return { do: 'folder', side, path, ...(mode !== undefined && { mode }) };
}

function makeNode(): Node {
  return { base: undefined, local: undefined, remote: undefined, unknown: false, children: new Map() };
}

function nodeAt(root: Node, path: string): Node {
  let node = root;
  for (const name of path.split('/')) {
    let child = node.children.get(name);
    if (!child) {
      child = makeNode();
      node.children.set(name, child);
    }
    node = child;
  }
  return node;
}

/** What both sides agree on once an action has been done. */
export function applyToBase(base: Entries, action: Action): void {
  switch (action.do) {
    case 'remove':
      base.delete(action.path);
      break;
    case 'folder':
      base.set(action.path, { kind: 'folder' });
      break;
    case 'rename':
      for (const path of base.keys())
        if (path === action.path || path.startsWith(`${action.path}/`)) base.delete(path);
      break;
    default:
      base.set(action.path, action.entry);
  }
}
