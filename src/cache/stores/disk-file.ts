// The disk tier's file: opening it, keeping others off it, and putting it away.
//
// A commit outlives a kill of the process at once (write-ahead log), a loss of power from the next sync on. What a crash
// leaves is whole transactions; beyond that each entry proves itself by its checksum.
//
// One gateway has the file to itself: the lock lasts as long as the connection, and the system drops it with the process.
// A file that is no database, or broken, is set aside as `<path>.damaged`, in place of an earlier one; a database of
// another program is not touched.

import { chmodSync, closeSync, openSync, renameSync, rmSync, statSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { ENCODING } from '../encoding.ts'
import { DiskDatabase, SCHEMA, SCHEMA_VERSION } from './disk-database.ts'

/** "WGTC", in the header of the file. */
const APPLICATION_ID = 0x57475443
/** What the file was written by: tables and entries. A file of another version starts anew. */
const VERSION = crc32(`${SCHEMA_VERSION} ${ENCODING}`) | 0

/** The file cannot be used as it is, and why, in words. */
export class UnusableFile extends Error {}

export interface DiskFile {
  readonly database: DiskDatabase
  /** Where what was found has been put, because it was damaged; null when it was not. */
  readonly setAside: string | null
  /** False when another file or none is there now. */
  isThere(): boolean
  /** Closes it. What is in it stays. */
  close(): void
  /** Closes it and puts it away: removed, or set aside where it is damaged. Throws where that cannot be. */
  discard(isDamaged: boolean): void
}

/** Opens the file, or makes it. Throws UnusableFile, or what SQLite and the file system throw. */
export function openFile(path: string, maxBytes: number): DiskFile {
  let setAside: string | null = null
  for (;;) {
    createFile(path)
    const connection = new DatabaseSync(path, { timeout: 0 })
    let opened: DiskFile | null = null
    try {
      if (prepareSchema(connection)) {
        opened = fileOf(connection, path, maxBytes, setAside)
        return opened
      }
      // Of another version.
      removeFiles(path)
    } catch (error) {
      if (sqliteCode(error) === SQLITE_BUSY) {
        throw new UnusableFile('another gateway has it open; each needs a file of its own', { cause: error })
      }
      if (!isDamage(error) || setAside !== null) throw error
      setAside = putAside(path)
    } finally {
      if (opened === null) connection.close()
    }
  }
}

function fileOf(connection: DatabaseSync, path: string, maxBytes: number, setAside: string | null): DiskFile {
  const { ino, dev } = statSync(path)
  return {
    database: new DiskDatabase(connection, maxBytes),
    setAside,
    isThere() {
      const now = statSync(path, { throwIfNoEntry: false })
      return now?.ino === ino && now.dev === dev
    },
    close: () => connection.close(),
    discard(isDamaged) {
      // While it is still locked.
      try {
        if (isDamaged) putAside(path)
        else removeFiles(path)
      } finally {
        connection.close()
      }
    },
  }
}

/** Takes the lock and makes the tables where there are none. False for a file of another version. */
function prepareSchema(connection: DatabaseSync): boolean {
  connection.exec('PRAGMA locking_mode = EXCLUSIVE')
  const isKnown = pragma(connection, 'application_id') === APPLICATION_ID
  if (!isKnown && pragma(connection, 'schema_version') !== 0) {
    throw new UnusableFile('it is the database of another program; name another file')
  }
  // Before the first table, so that space can be given back.
  if (!isKnown) connection.exec('PRAGMA auto_vacuum = INCREMENTAL')
  connection.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304')
  if (isKnown) return pragma(connection, 'user_version') === VERSION
  const marks = `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${VERSION}`
  connection.exec(`BEGIN IMMEDIATE; ${SCHEMA}; ${marks}; COMMIT`)
  return true
}

/** For nobody else's eyes: what is stored may be one user's. A file that is there is not opened: to close another handle
 *  of it would drop the lock that this process may have on it (POSIX). */
function createFile(path: string): void {
  try {
    closeSync(openSync(path, 'wx', 0o600))
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'EEXIST') throw error
    const found = statSync(path)
    if (!found.isFile()) throw new UnusableFile('it is no plain file; name another')
    if ((found.mode & 0o077) !== 0) chmodSync(path, 0o600)
  }
}

/** Answers where to. */
function putAside(path: string): string {
  const aside = `${path}.damaged`
  renameSync(path, aside)
  removeFiles(path)
  return aside
}

/** Removes the file and what SQLite keeps beside it. Throws where that cannot be. */
export function removeFiles(path: string): void {
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(path + suffix, { force: true })
}

/** True when what is on the disk is not what was written there. */
export const isDamage = (error: unknown): boolean => {
  const code = sqliteCode(error)
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB
}

const SQLITE_BUSY = 5
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

/** The primary result code; 0 for what is no error of SQLite. */
const sqliteCode = (error: unknown): number =>
  error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : 0

const pragma = (connection: DatabaseSync, name: string): unknown =>
  Object.values(connection.prepare(`PRAGMA ${name}`).get() ?? {})[0]
