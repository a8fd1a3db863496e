import type { NetworkGrouping } from '@cde/api/session-values.ts';
import { getNetwork } from '@cde/api/sessions.ts';
import { keepPreviousData, queryOptions } from '@tanstack/react-query';
import { call } from '../client.ts';
import { type NetworkRange, networkRanges } from './ranges.ts';

export const groupingNames: Record<NetworkGrouping, string> = {
  region: 'Region',
  user: 'User',
  workspace: 'Workspace',
  'client-version': 'Version of cde',
  path: 'Path',
  hour: 'Hour of the day',
};

/** Rolled-up samples arrive every few minutes. */
const askEveryMs = 60_000;

export const networkQuery = (range: NetworkRange, by: NetworkGrouping) =>
  queryOptions({
    queryKey: ['network', range, by],
    queryFn: ({ signal }) =>
      call(getNetwork, {
        query: {
          from: new Date(Date.now() - networkRanges[range].ms).toISOString(),
          timeZone: Intl.DateTimeFormat().resolvedOptions().timeZone,
          by,
        },
        signal,
      }),
    placeholderData: keepPreviousData,
    refetchInterval: askEveryMs,
  });
