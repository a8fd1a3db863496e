import { MutationCache, QueryCache, QueryClient } from '@tanstack/react-query';
import { CallError, isSignedOut } from './client.ts';

const signedOutListeners = new Set<() => void>();

/** Called when a request fails because the session has ended. */
export function onSignedOut(listener: () => void): void {
  signedOutListeners.add(listener);
}

function notice(error: unknown, meta: Record<string, unknown> | undefined): void {
  if (isSignedOut(error) && meta?.signedOutIsFine !== true)
    for (const listener of signedOutListeners) listener();
}

export const queryClient = new QueryClient({
  queryCache: new QueryCache({ onError: (error, query) => notice(error, query.meta) }),
  mutationCache: new MutationCache({
    onError: (error, _variables, _context, _result, mutation) => notice(error, mutation?.meta),
  }),
  defaultOptions: {
    queries: {
      staleTime: 2000,
      // Invalid requests stay invalid; an unreachable or busy server may recover.
      retry: (failures, error) =>
        failures < 2 && error instanceof CallError && (error.status === 0 || error.status >= 500),
      retryDelay: (attempt) => 400 * 2 ** attempt,
    },
  },
});
