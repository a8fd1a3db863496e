import { listTemplates } from '@cde/api/templates.ts';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { callAll } from '../client.ts';
import { useTitle } from '../shell.tsx';
import { List } from '../ui/list.tsx';
import { Ago } from '../ui/time.tsx';
import { TemplateIcon } from './template-icon.tsx';
import '../workspaces/workspaces.css';

export function TemplatesPage() {
  useTitle('Templates');
  const templates = useQuery({
    queryKey: ['templates'],
    queryFn: ({ signal }) => callAll(listTemplates, { signal }),
  });
  return (
    <main id="main">
      <div className="page-head">
        <h1>Templates</h1>
        <p>
          Workspaces are created from templates. A template admin publishes a folder with{' '}
          <code>cde template push FOLDER</code>.
        </p>
      </div>
      <List
        query={templates}
        rows={templates.data ?? []}
        keyOf={(template) => template.id}
        empty={
          <>
            <strong>No templates yet</strong>
            <p>A template appears here once a template admin has published it.</p>
          </>
        }
        columns={[
          {
            title: 'Template',
            is: 'name',
            cell: (template) => (
              <span className="template-cell">
                <TemplateIcon template={template} />
                <span>
                  <Link to="/templates/$template" params={{ template: template.name }}>
                    <strong>{template.title || template.name}</strong>
                  </Link>
                  <span className="hint">{template.description}</span>
                </span>
              </span>
            ),
          },
          { title: 'Provider', cell: (template) => template.provider },
          { title: 'Active version', cell: (template) => `v${template.activeVersion.number}` },
          { title: 'Workspaces', cell: (template) => template.workspaces },
          {
            title: 'Updated',
            className: 'muted nowrap',
            cell: (template) => <Ago at={template.updatedAt} />,
          },
          {
            title: 'Actions',
            is: 'actions',
            cell: (template) => (
              <Link
                className="button small"
                to="/workspaces/new"
                search={{ template: template.name }}
                aria-label={`New workspace from ${template.name}`}
              >
                New workspace
              </Link>
            ),
          },
        ]}
      />
    </main>
  );
}
