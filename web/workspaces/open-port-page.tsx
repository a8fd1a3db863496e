import { openPort } from '@cde/api/ports.ts';
import { useQuery } from '@tanstack/react-query';
import { useSearch } from '@tanstack/react-router';
import { useEffect } from 'react';
import { call } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';

/**
 * The server redirects a browser here when it first opens a shared port. This page proves with the session key that the
 * request comes from the dashboard, then continues to the port. A navigation carries only the cookie, which proves
 * nothing.
 */
export function OpenPortPage() {
  useTitle('Open a port');
  const { host, to = '/', state } = useSearch({ from: '/signed-in/ports/open' });
  const opened = useQuery({
    queryKey: ['open-port', host, to, state],
    queryFn: ({ signal }) => call(openPort, { body: { host, to, state }, signal }),
    // A code works once.
    staleTime: 0,
    gcTime: 0,
    retry: false,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  });
  const target = opened.data?.location;
  useEffect(() => {
    if (target !== undefined) location.replace(target);
  }, [target]);
  return (
    <main id="main" className="narrow stack">
      {opened.error ? (
        <Problem error={opened.error} retry={() => opened.refetch()} />
      ) : (
        <p className="row" role="status">
          <Spinner /> Opening the port…
        </p>
      )}
    </main>
  );
}
