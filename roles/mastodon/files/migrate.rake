# The release's own db:migrate, so that a migration without a transaction of its own can be run a second time.
#   mastodon-run mastodon-owner RELEASE bundle exec rake -f migrate.rake db:migrate
# Such a migration (upstream's add_reference with an index built beside the work) is not undone when its second
# statement gets no lock, or when it is killed: begun anew it would fail for ever at "column already exists".

load File.join(Dir.pwd, "Rakefile")

module RunAgain
  def add_column(table, name, type, **options) = super(table, name, type, **missing(options))

  def add_foreign_key(from, to, **options) = super(from, to, **missing(options))

  def add_index(table, columns, **options)
    drop_unfinished(table) unless transaction_open?
    super(table, columns, **missing(options))
  end

  def remove_index(table, columns = nil, **options)
    super(table, columns, **(transaction_open? ? options : { if_exists: true, **options }))
  end

  private

  # Inside a transaction nothing is half done, and what is there already is somebody's fault to be seen.
  def missing(options) = transaction_open? ? options : { if_not_exists: true, **options }

  # An index whose building ended early stays behind, without use, under the name of the one to build.
  def drop_unfinished(table)
    found = select_values(<<~SQL)
      SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid AND indrelid = to_regclass(#{quote(table.to_s)})
    SQL
    found.each { |index| execute("DROP INDEX CONCURRENTLY #{index}") }
  end
end

task run_again: :environment do
  require "active_record/connection_adapters/postgresql_adapter"
  ActiveRecord::ConnectionAdapters::PostgreSQLAdapter.prepend(RunAgain)
end

Rake::Task["db:migrate"].enhance([:run_again])
