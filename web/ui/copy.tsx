import { useEffect, useRef, useState } from 'react';
import { Icon } from './icons.tsx';

/** Copies `text` (or its result), and confirms that for two seconds. */
export function CopyButton({ text, label }: { text: string | (() => string); label: string }) {
  const [state, setState] = useState<'idle' | 'copied' | 'failed'>('idle');
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  async function copy() {
    const value = typeof text === 'string' ? text : text();
    const done = await navigator.clipboard?.writeText(value).then(
      () => true,
      () => false,
    );
    // The clipboard API needs https or localhost.
    setState((done ?? copyBySelection(value)) ? 'copied' : 'failed');
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setState('idle'), 2000);
  }
  const said = { idle: label, copied: 'Copied', failed: 'Could not copy: select the text instead' };
  return (
    <button type="button" className="button icon-only quiet" onClick={copy} title={said[state]}>
      <Icon name={state === 'copied' ? 'check' : state === 'failed' ? 'warning' : 'copy'} />
      <span className="hidden" aria-live="polite">
        {said[state]}
      </span>
    </button>
  );
}

function copyBySelection(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'hidden';
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

/** A one-line command or secret with a copy button. */
export function CopyLine({ text, label = 'Copy' }: { text: string; label?: string }) {
  return (
    <div className="copy-line">
      <code>{text}</code>
      <CopyButton text={text} label={label} />
    </div>
  );
}
