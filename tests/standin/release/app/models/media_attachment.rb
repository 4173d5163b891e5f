class MediaAttachment < ApplicationRecord
  self.inheritance_column = nil
  # First bytes of what we take. Upstream looks at the bytes as well and does not trust the name.
  KINDS = { "image/png" => "\x89PNG".b, "image/jpeg" => "\xFF\xD8\xFF".b, "image/gif" => "GIF8".b, "image/webp" => "RIFF".b }.freeze

  enum :type, { image: 0, gifv: 1, video: 2, unknown: 3, audio: 4 }, suffix: :type
  belongs_to :account, optional: true
  belongs_to :status, optional: true
  after_destroy { ObjectStore.delete(*%w[original small].map { |style| key(style) }) }

  def self.content_type_of(bytes) = KINDS.find { |_, start| bytes.start_with?(start) }&.first

  # Both styles hold the same bytes: nothing is scaled here.
  def store!(bytes, content_type)
    self.file_content_type = content_type
    self.file_file_name = "#{SecureRandom.hex(8)}.#{content_type.split('/').last.sub('jpeg', 'jpg')}"
    self.file_file_size = bytes.bytesize
    self.file_updated_at = Time.now.utc
    save!
    %w[original small].each { |style| ObjectStore.put(key(style), bytes, content_type) }
  rescue ObjectStore::Unavailable
    MediaAttachment.where(id:).delete_all
    raise
  end

  def key(style) = "media_attachments/files/#{format('%018d', id).scan(/.../).join('/')}/#{style}/#{file_file_name}"
  def url(style = "original") = ObjectStore.url(key(style))
end
