import './jitless.ts';
import './styles/base.css';
import './styles/layout.css';
import './styles/parts.css';
import { QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { ActionButton } from './actions/action-button.tsx';
import { onSignedOut, queryClient } from './query-client.ts';
import { router } from './router.tsx';
import { ActionComponent } from './ui/problem.tsx';

onSignedOut(() => {
  const { pathname, href } = router.state.location;
  if (pathname === '/sign-in') return;
  queryClient.clear();
  void router.navigate({ to: '/sign-in', search: { next: href }, replace: true });
});

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <ActionComponent value={ActionButton}>
        <RouterProvider router={router} />
      </ActionComponent>
    </QueryClientProvider>
  </StrictMode>,
);
