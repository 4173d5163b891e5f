# Copies the gems of DEST/Gemfile, and all they need, from Debian's packages into DEST/vendor/bundle,
# so that a host needs Ruby and Bundler but none of the ruby-* packages.
#
# Debian keeps a gem's files in up to three places: the gem's own directory, the directory of compiled
# extensions, and Ruby's vendor directories. Bundler wants one directory per gem.
require "fileutils"
require "open3"

DEST = ARGV.fetch(0)
BUNDLE = File.join(DEST, "vendor/bundle/ruby", RbConfig::CONFIG["ruby_version"])
VENDOR_DIRS = [RbConfig::CONFIG["vendordir"], RbConfig::CONFIG["vendorarchdir"]].freeze

def closure(names)
  found = {}
  until names.empty?
    spec = Gem::Specification.find_by_name(names.shift)
    next if found.key?(spec.name)

    found[spec.name] = spec
    names.concat(spec.runtime_dependencies.map(&:name))
  end
  # Default gems come with Ruby itself, on the host too; what they need in turn may not.
  found.values.reject(&:default_gem?).sort_by(&:name)
end

def package_files(spec)
  owner, status = Open3.capture2("dpkg", "-S", spec.loaded_from)
  abort "vendor.rb: no Debian package owns #{spec.loaded_from}" unless status.success?
  Open3.capture2("dpkg", "-L", owner[/\A[^:]+(:\w+)?(?=: )/]).first.lines(chomp: true).select { |path| File.file?(path) }
end

def copy(from, to)
  FileUtils.mkdir_p(File.dirname(to))
  FileUtils.cp(from, to)
end

# Debian links some directories of a gem (sidekiq's web/) elsewhere, hence the dereferencing walk.
def copy_tree(from, to)
  Dir.children(from).sort.each do |name|
    path = File.join(from, name)
    File.directory?(path) ? copy_tree(path, File.join(to, name)) : copy(path, File.join(to, name))
  end
end

def vendor_dir_files(spec)
  package_files(spec).filter_map do |path|
    base = VENDOR_DIRS.select { |dir| path.start_with?("#{dir}/") }.max_by(&:length)
    [path, path.delete_prefix("#{base}/")] if base
  end
end

def install(spec)
  home = File.join(BUNDLE, "gems", spec.full_name)
  FileUtils.mkdir_p(File.join(home, "lib"))
  copy_tree(spec.full_gem_path, home) if File.directory?(spec.full_gem_path)
  copy_tree(spec.extension_dir, File.join(home, "lib")) if spec.extensions.any? && File.directory?(spec.extension_dir)
  if Dir.empty?(File.join(home, "lib"))
    vendor_dir_files(spec).each { |path, relative| copy(path, File.join(home, "lib", relative)) }
  end
  FileUtils.rm_f(Dir.glob("#{home}/lib/gem{.build_complete,_make.out}"))
  abort "vendor.rb: found no file of gem #{spec.name}" if Dir.empty?(File.join(home, "lib"))
  write_spec(spec)
  write_binstubs(spec)
end

# Nothing is left to compile. A few gems (concurrent-ruby) have their files below lib/.
def write_spec(spec)
  spec.require_paths = (spec.raw_require_paths | ["lib"]).select { |path| File.directory?(File.join(BUNDLE, "gems", spec.full_name, path)) }
  spec.extensions = []
  spec.files = []
  path = File.join(BUNDLE, "specifications", "#{spec.full_name}.gemspec")
  FileUtils.mkdir_p(File.dirname(path))
  File.write(path, spec.to_ruby.gsub(/^ *s\.installed_by_version.*\n/, ""))
end

def write_binstubs(spec)
  spec.executables.each do |name|
    path = File.join(BUNDLE, "bin", name)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, "#!/usr/bin/env ruby\nload Gem.bin_path(#{spec.name.inspect}, #{name.inspect})\n")
    File.chmod(0o755, path)
  end
end

specs = closure(File.read(File.join(DEST, "Gemfile")).scan(/^gem "([^"]+)"/).flatten)
specs.each { |spec| install(spec) }
File.write(File.join(DEST, "vendor/debian-gems.txt"), specs.map { |spec| "#{spec.name} #{spec.version}\n" }.join)
