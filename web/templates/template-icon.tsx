import type { Template } from '@cde/api/templates.ts';

/** The template's emoji, else its first letter. (An icon may also be a path in the folder; the API does not serve those.) */
export function TemplateIcon({ template }: { template: Pick<Template, 'icon' | 'name' | 'title'> }) {
  const isEmoji = template.icon !== '' && !/[./\w]/.test(template.icon);
  return (
    <span className="template-icon" aria-hidden="true">
      {isEmoji ? template.icon : (template.title || template.name).charAt(0).toUpperCase()}
    </span>
  );
}
