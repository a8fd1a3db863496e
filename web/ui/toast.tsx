import type { Action } from '@cde/api/actions.ts';
import { useSyncExternalStore } from 'react';
import { CallError } from '../client.ts';
import { Icon } from './icons.tsx';
import { ActionButtons } from './problem.tsx';

interface Toast {
  id: number;
  kind: 'done' | 'failed';
  text: string;
  more: string | undefined;
  actions?: readonly Action[] | undefined;
}

// Long enough to read twice. Failures stay until they are closed.
const shownMs = 6000;
let toasts: Toast[] = [];
let count = 0;
const listeners = new Set<() => void>();
const change = (next: Toast[]) => {
  toasts = next;
  for (const listener of listeners) listener();
};
const close = (id: number) => change(toasts.filter((toast) => toast.id !== id));

/** Shows a short notice that something was done. */
export function sayDone(text: string): void {
  const id = ++count;
  change([...toasts, { id, kind: 'done', text, more: undefined }]);
  setTimeout(() => close(id), shownMs);
}

/** Shows that something failed and why, until it is closed. */
export function sayFailed(what: string, error: unknown): void {
  const body = error instanceof CallError ? error.body : { message: (error as Error).message };
  const more = [body.message, 'detail' in body && body.detail, 'hint' in body && body.hint];
  change([
    ...toasts.slice(-3),
    {
      id: ++count,
      kind: 'failed',
      text: what,
      more: more.filter(Boolean).join(' '),
      actions: 'actions' in body ? body.actions : undefined,
    },
  ]);
}

export function Toasts() {
  const shown = useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => toasts,
  );
  return (
    <div className="toasts" aria-live="polite">
      {shown.map((toast) => (
        <div key={toast.id} className={`toast ${toast.kind}`}>
          <Icon name={toast.kind === 'done' ? 'check' : 'warning'} />
          <div>
            <strong>{toast.text}</strong>
            {toast.more && <p>{toast.more}</p>}
            <ActionButtons actions={toast.actions} />
          </div>
          <button
            type="button"
            className="button icon-only quiet"
            title="Close"
            onClick={() => close(toast.id)}
          >
            <Icon name="cross" />
            <span className="hidden">Close</span>
          </button>
        </div>
      ))}
    </div>
  );
}
