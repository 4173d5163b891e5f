# A file of a record: `record.file = open_file`, columns file_file_name, file_content_type, file_file_size, file_updated_at.
module StoredFile
  extend ActiveSupport::Concern

  class_methods do
    def stored_file(name, under:)
      validates :"#{name}_content_type", inclusion: { in: MediaAttachment::KINDS.keys }
      define_method(:"#{name}=") do |file|
        @bytes = file.read
        type = MediaAttachment.content_type_of(@bytes)
        assign_attributes("#{name}_content_type": type, "#{name}_file_size": @bytes.bytesize, "#{name}_updated_at": Time.now.utc,
                          "#{name}_file_name": "#{SecureRandom.hex(8)}.#{type.to_s.split('/').last}")
      end
      define_method(:key) { "#{under}/#{format('%09d', id).scan(/.../).join('/')}/original/#{self[:"#{name}_file_name"]}" }
      define_method(:url) { ObjectStore.url(key) }
      after_save { ObjectStore.put(key, @bytes, self[:"#{name}_content_type"]) if @bytes }
      after_destroy { ObjectStore.delete(key) }
    end
  end
end
