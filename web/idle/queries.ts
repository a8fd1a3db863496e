import { getWorkspaceActivity, listActivityEvents, type WorkspaceActivity } from '@cde/api/activity.ts';
import { queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';
import { pagedQuery } from '../paging.ts';

export const activityQuery = (workspaceId: string) =>
  queryOptions<WorkspaceActivity>({
    queryKey: ['activity', workspaceId],
    queryFn: ({ signal }) => call(getWorkspaceActivity, { params: { workspace: workspaceId }, signal }),
  });

/** Newest first. */
export const activityEventsQuery = (workspaceId: string) =>
  pagedQuery(['activity-events', workspaceId], (query, signal) =>
    call(listActivityEvents, { params: { workspace: workspaceId }, query, signal }),
  );
