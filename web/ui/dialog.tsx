import { type ReactNode, useEffect, useId, useRef } from 'react';
import { Icon } from './icons.tsx';

/** A modal dialog: the browser keeps the focus in it, Escape and the cross close it, and focus returns. */
export function Dialog({
  title,
  children,
  onClose,
  wide = false,
}: {
  title: string;
  children: ReactNode;
  onClose: () => void;
  wide?: boolean;
}) {
  const ref = useRef<HTMLDialogElement>(null);
  const titleId = useId();
  useEffect(() => {
    const dialog = ref.current;
    if (dialog && !dialog.open) {
      dialog.showModal();
      // Otherwise the close button, which comes first, would get the focus.
      dialog.querySelector<HTMLElement>('form :is(input, textarea, select)')?.focus();
    }
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      className={wide ? 'dialog wide' : 'dialog'}
      aria-labelledby={titleId}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <header>
        <h2 id={titleId}>{title}</h2>
        <button type="button" className="button icon-only quiet" onClick={onClose} title="Close">
          <Icon name="cross" />
          <span className="hidden">Close</span>
        </button>
      </header>
      {children}
    </dialog>
  );
}
