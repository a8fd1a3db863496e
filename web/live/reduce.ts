import type { Build, Workspace } from '@cde/api/workspaces.ts';

export interface Pages<T> {
  pages: { items: T[]; next: string | null }[];
  pageParams: unknown[];
}

const rank = { queued: 0, running: 1, succeeded: 2, failed: 2, cancelled: 2 } as const;

/** A build's progress. It only grows, so a reply that was overtaken by an event can be recognized. */
function progress(build: Build): number {
  const ended = build.stages.filter((stage) => stage.finishedAt !== null).length;
  return rank[build.status] * 1000 + build.stages.length * 20 + ended * 2 + (build.cancelRequested ? 1 : 0);
}

/** The later one of two states of a build. */
export function laterBuild(known: Build | null | undefined, next: Build): Build {
  if (!known || known.number < next.number) return next;
  if (known.number > next.number) return known;
  return progress(known) > progress(next) ? known : next;
}

/** The later one of two states of a workspace. */
export function laterWorkspace(known: Workspace | undefined, next: Workspace): Workspace {
  if (!known || known.id !== next.id) return next;
  const later = known.updatedAt > next.updatedAt ? known : next;
  const other = later === known ? next : known;
  if (!later.latestBuild || !other.latestBuild) return later;
  const latestBuild = laterBuild(other.latestBuild, later.latestBuild);
  return latestBuild === later.latestBuild ? later : { ...later, latestBuild };
}

/** Replaces a workspace in the pages of a list; `found` is false if the list has no such row. */
export function putWorkspace(
  list: Pages<Workspace>,
  workspace: Workspace,
): { list: Pages<Workspace>; found: boolean } {
  let found = false;
  const pages = list.pages.map((page) => {
    const at = page.items.findIndex((item) => item.id === workspace.id);
    if (at < 0) return page;
    found = true;
    const items = [...page.items];
    items[at] = laterWorkspace(items[at], workspace);
    return { ...page, items };
  });
  return found ? { list: { ...list, pages }, found } : { list, found };
}

/** Removes a workspace from the pages of a list. */
export function dropWorkspace(list: Pages<Workspace>, id: string): Pages<Workspace> {
  if (!list.pages.some((page) => page.items.some((item) => item.id === id))) return list;
  return {
    ...list,
    pages: list.pages.map((page) => ({ ...page, items: page.items.filter((item) => item.id !== id) })),
  };
}

/** Inserts or replaces a build in a list that is sorted newest first. */
export function putBuild(builds: Build[], build: Build): Build[] {
  const at = builds.findIndex((known) => known.id === build.id);
  if (at >= 0) {
    const later = laterBuild(builds[at], build);
    if (later === builds[at]) return builds;
    return builds.map((known, index) => (index === at ? later : known));
  }
  return [...builds, build].sort((a, b) => b.number - a.number);
}
