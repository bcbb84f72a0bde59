// The presentation service's database: SQLite in memory, seeded on opening, and a count of the statements run since.
// The only place with SQL. Rows go to the client as they come, so they stay untyped here.

import { DatabaseSync } from 'node:sqlite'
import type { SQLInputValue, SQLOutputValue, StatementSync } from 'node:sqlite'
import { presentations, templates, themes, users } from './seed.ts'

/** Rows that POST may add up to; the memory of the demo is bounded by it and by the bounds on each field. */
export const MAX_PRESENTATIONS = 10_000

export type Row = Readonly<Record<string, SQLOutputValue>>

const SORTS = {
  created_at: 'created_at',
  '-created_at': 'created_at DESC',
  updated_at: 'updated_at',
  '-updated_at': 'updated_at DESC',
  title: 'title',
  '-title': 'title DESC',
} as const

export type Sort = keyof typeof SORTS
export const sortWords = Object.keys(SORTS) as Sort[]

/** null leaves a column as it is. */
export interface PresentationEdit {
  readonly title: string | null
  readonly description: string | null
  readonly status: string | null
  readonly template_id: number | null
  readonly theme_id: number | null
}

const SCHEMA = `
  CREATE TABLE users (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
    token TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL);
  CREATE TABLE templates (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL, description TEXT NOT NULL,
    slide_count INTEGER NOT NULL, thumbnail_url TEXT NOT NULL);
  CREATE TABLE themes (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, font TEXT NOT NULL, primary_color TEXT NOT NULL, background TEXT NOT NULL);
  CREATE TABLE presentations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL,
    owner_id INTEGER NOT NULL REFERENCES users, template_id INTEGER NOT NULL REFERENCES templates,
    theme_id INTEGER NOT NULL REFERENCES themes, slides TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
  CREATE INDEX presentations_by_created ON presentations (created_at);
  CREATE INDEX presentations_by_updated ON presentations (updated_at);
  CREATE INDEX presentations_by_title ON presentations (title);`

const COLUMNS = `p.id, p.title, p.description, p.status, p.owner_id, u.name AS owner_name, p.template_id, p.theme_id,
  json_array_length(p.slides) AS slide_count, p.created_at, p.updated_at`

export class PresentationDatabase {
  readonly #sqlite = new DatabaseSync(':memory:')
  readonly #statements = new Map<string, StatementSync>() // as many as there are SQL texts in this file
  #queries = 0

  constructor() {
    this.#sqlite.exec(SCHEMA)
    this.#sqlite.exec('BEGIN')
    for (const [table, rows] of Object.entries({
      users: users(),
      templates: templates(),
      themes: themes(),
      presentations: presentations(),
    })) {
      for (const row of rows) {
        const names = Object.keys(row)
        const sql = `INSERT INTO ${table} (${names.join(', ')}) VALUES (${names.map((name) => `:${name}`).join(', ')})`
        this.#prepare(sql).run(row)
      }
    }
    this.#sqlite.exec('COMMIT')
  }

  /** SQL statements run for requests. */
  get queries(): number {
    return this.#queries
  }

  /** Two statements: one page of presentations without their slides, and how many there are. page counts from 1. */
  listPresentations(page: number, pageSize: number, sort: Sort): { items: readonly Row[]; total: number } {
    const items = this.#all(
      `SELECT ${COLUMNS} FROM presentations p JOIN users u ON u.id = p.owner_id
       ORDER BY p.${SORTS[sort]}, p.id LIMIT :limit OFFSET :offset`,
      { limit: pageSize, offset: (page - 1) * pageSize },
    )
    const count = this.#get('SELECT count(*) AS total FROM presentations')
    return { items, total: Number(count?.['total']) }
  }

  /** One presentation with its slides. */
  presentation(id: number): Readonly<Record<string, unknown>> | undefined {
    const row = this.#get(
      `SELECT ${COLUMNS}, p.slides FROM presentations p JOIN users u ON u.id = p.owner_id WHERE p.id = :id`,
      { id },
    )
    return row && { ...row, slides: JSON.parse(String(row['slides'])) as unknown }
  }

  /** Adds a presentation without slides and answers its id; undefined when MAX_PRESENTATIONS are there. */
  createPresentation(values: Readonly<Record<keyof PresentationEdit, SQLInputValue>>): number | undefined {
    const row = this.#get(
      `INSERT INTO presentations (title, description, status, owner_id, template_id, theme_id, slides, created_at, updated_at)
       SELECT :title, :description, :status, 1, :template_id, :theme_id, '[]', :now, :now
       WHERE (SELECT count(*) FROM presentations) < ${MAX_PRESENTATIONS} RETURNING id`,
      { ...values, now: new Date().toISOString() },
    )
    return row && Number(row['id'])
  }

  /** False where there is no such presentation. */
  updatePresentation(id: number, edit: PresentationEdit): boolean {
    return this.#run(
      `UPDATE presentations SET title = coalesce(:title, title), description = coalesce(:description, description),
         status = coalesce(:status, status), template_id = coalesce(:template_id, template_id),
         theme_id = coalesce(:theme_id, theme_id), updated_at = :now WHERE id = :id`,
      { ...edit, id, now: new Date().toISOString() },
    )
  }

  /** False where there was no such presentation. */
  deletePresentation(id: number): boolean {
    return this.#run('DELETE FROM presentations WHERE id = :id', { id })
  }

  templates(): readonly Row[] {
    return this.#all('SELECT * FROM templates ORDER BY id')
  }

  template(id: number): Row | undefined {
    return this.#get('SELECT * FROM templates WHERE id = :id', { id })
  }

  themes(): readonly Row[] {
    return this.#all('SELECT * FROM themes ORDER BY id')
  }

  theme(id: number): Row | undefined {
    return this.#get('SELECT * FROM themes WHERE id = :id', { id })
  }

  /** What everybody may know of a user. */
  user(id: number): Row | undefined {
    return this.#get('SELECT id, name, role, created_at FROM users WHERE id = :id', { id })
  }

  /** The user whose token this is, private fields included. */
  userByToken(token: string): Row | undefined {
    return this.#get(
      `SELECT id, name, email, role, created_at,
         (SELECT count(*) FROM presentations WHERE owner_id = users.id) AS presentation_count
       FROM users WHERE token = :token`,
      { token },
    )
  }

  close(): void {
    this.#sqlite.close()
  }

  #all(sql: string, values: Record<string, SQLInputValue> = {}): Row[] {
    this.#queries++
    return this.#prepare(sql).all(values)
  }

  #get(sql: string, values: Record<string, SQLInputValue> = {}): Row | undefined {
    this.#queries++
    return this.#prepare(sql).get(values)
  }

  #run(sql: string, values: Record<string, SQLInputValue>): boolean {
    this.#queries++
    return Number(this.#prepare(sql).run(values).changes) > 0
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known !== undefined) return known
    const statement = this.#sqlite.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }
}
