import type { ServerMessage } from '@cde/api/events.ts';
import type { Build, Workspace } from '@cde/api/workspaces.ts';
import { type QueryClient, useQueryClient } from '@tanstack/react-query';
import { useEffect, useSyncExternalStore } from 'react';
import { openSocket } from '../client.ts';
import { queryClient } from '../query-client.ts';
import { type LiveState, makeLive, type Socket } from './connection.ts';
import { dropWorkspace, laterWorkspace, type Pages, putBuild, putWorkspace } from './reduce.ts';

/** How often pages poll while no events arrive. */
const pollMs = 4000;

export const live = makeLive({
  open: () => openSocket('/api/v1/events') as unknown as Socket,
  visible: document.visibilityState === 'visible',
});

document.addEventListener('visibilitychange', () => live.setVisible(document.visibilityState === 'visible'));
window.addEventListener('online', () => live.retryNow());
live.onMessage((message) => apply(queryClient, message));

const listPauseMs = 300;
let listAgain: ReturnType<typeof setTimeout> | null = null;
/** A row that is in no list: refetch the lists, once for a burst of such rows. */
function refreshLists(client: QueryClient): void {
  if (listAgain) return;
  listAgain = setTimeout(() => {
    listAgain = null;
    void client.invalidateQueries({ queryKey: ['workspaces'] });
  }, listPauseMs);
}

/** Applies an event to the query cache that the pages show. */
function apply(client: QueryClient, message: ServerMessage): void {
  switch (message.type) {
    case 'subscribed':
    case 'resync':
      if (message.topic === 'workspaces') {
        void client.invalidateQueries({ queryKey: ['workspaces'] });
        void client.invalidateQueries({ queryKey: ['homes'] });
      } else if (message.topic.startsWith('workspace:')) {
        void client.invalidateQueries({ queryKey: ['workspace'] });
        void client.invalidateQueries({ queryKey: ['builds'] });
      }
      break;
    case 'workspace': {
      const { workspace } = message;
      client.setQueryData<Workspace>(['workspace', `${workspace.owner}~${workspace.name}`], (known) =>
        known ? laterWorkspace(known, workspace) : known,
      );
      if (workspace.latestBuild) keepBuild(client, workspace.latestBuild);
      for (const [queryKey, list] of client.getQueriesData<Pages<Workspace>>({ queryKey: ['workspaces'] })) {
        if (!list) continue;
        const put = putWorkspace(list, workspace);
        if (put.found) client.setQueryData(queryKey, put.list);
        else if (message.topic === 'workspaces') refreshLists(client);
      }
      break;
    }
    case 'workspace-gone':
      for (const [queryKey, list] of client.getQueriesData<Pages<Workspace>>({ queryKey: ['workspaces'] }))
        if (list) client.setQueryData(queryKey, dropWorkspace(list, message.id));
      // Its home may have been retained.
      void client.invalidateQueries({ queryKey: ['homes'] });
      void client.invalidateQueries({
        predicate: ({ queryKey, state }) =>
          queryKey[0] === 'workspace' && (state.data as Workspace | undefined)?.id === message.id,
      });
      break;
    case 'build':
      keepBuild(client, message.build);
      break;
  }
}

function keepBuild(client: QueryClient, build: Build): void {
  client.setQueryData<Build[]>(['builds', build.workspaceId], (known) => known && putBuild(known, build));
}

/** Subscribes to a topic while the component is mounted; null for none. */
export function useTopic(topic: string | null): void {
  useEffect(() => (topic === null ? undefined : live.hold(topic)), [topic]);
}

export function useLiveState(): LiveState {
  return useSyncExternalStore(live.onState, live.state);
}

/** A query's `refetchInterval`: none while events arrive or the tab is hidden. */
export function usePolling(ms: number = pollMs): number | false {
  return useLiveState() === 'live' ? false : ms;
}

/** For actions: shows the server's reply at once, before its event arrives. */
export function useKeepBuild(): (build: Build) => void {
  const client = useQueryClient();
  return (build) => keepBuild(client, build);
}
